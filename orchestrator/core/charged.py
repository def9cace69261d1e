"""What AWS says it charged, as values: one `Charged` a line of a file of its own. Pure; the formats have a module each.

A file is refused as a whole, with every fault and its line, rather than read in part: a bill is held against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Literal

from orchestrator.core.units import MICRO, MicroUSD, counted
from orchestrator.errors import BadInput

SHOWN = 20
Kind = Literal["hour", "window", "other"]


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of a file: micro-dollars, and how far the digits that the file gives leave it open."""

    usd: MicroUSD
    slack: MicroUSD


@dataclass(frozen=True, slots=True)
class Charged:
    """A line: `hour` is one instance-hour from `start`, `window` an instance's use of [start, end), `other` the rest.

    `seconds` (windows) and `price` (hours; micro-dollars an hour) are None where the format has none.
    """

    file: str
    line: int
    kind: Kind
    resource: str
    usage: str
    start: datetime
    end: datetime | None
    cost: Money
    seconds: int | None = None
    price: Money | None = None


def parse_money(text: str) -> Money:
    """Return an amount of dollars; half a unit of its last digit is its slack. Raises ValueError."""
    try:
        amount = Decimal(text.strip())
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not an amount of dollars") from error
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{text!r} is not an amount of dollars")
    slack = Decimal(5).scaleb(exponent - 1) * MICRO
    return Money(int((amount * MICRO).to_integral_value(ROUND_HALF_EVEN)), int(slack))


def refuse(file: str, faults: Sequence[str], what: str) -> BadInput:
    """Return the refusal of a file that is no such `what`; `faults` are lines of their own."""
    more = len(faults) - SHOWN
    shown = (*faults[:SHOWN], *([f"and {more} more"] if more > 0 else []))
    hint = "give the file as AWS wrote it (docs/billing.md)"
    return BadInput(f"{file} is not {what}: {counted(len(faults), 'fault')}", hint, details=shown)
