"""Durations, sizes, times and money: parsing and formatting. Pure.

Money is an integer number of micro-dollars everywhere (law 8); it becomes a decimal string only at the edge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache

MICRO = 1_000_000
MicroUSD = int

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_duration(text: str | int) -> timedelta:
    """Return the duration written as `90s`, `10m`, `1h30m` or `2d`; a bare integer means seconds.

    Raises ValueError when the text is not a positive duration.
    """
    if isinstance(text, bool):
        raise ValueError("a duration looks like 90s, 10m, 1h30m or 2d")
    if isinstance(text, int) or (text.isascii() and text.isdigit()):
        seconds = int(text)
    else:
        match = _DURATION.fullmatch(text.strip()) if text.isascii() else None
        if match is None or not any(match.groups()):
            raise ValueError(f"{text!r} is not a duration such as 90s, 10m, 1h30m or 2d")
        days, hours, minutes, secs = (int(part or 0) for part in match.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + secs
    if not 0 < seconds <= 90 * 86_400:
        raise ValueError(f"a duration must be between 1s and 90d, not {text}")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta | float) -> str:
    """Return `1h02m`, `12m30s` or `45s`."""
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    hours, rest = divmod(max(seconds, 0), 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{secs:02d}s" if minutes else f"{secs}s"


def counted(number: int, noun: str) -> str:
    """Return `1 node`, `16 nodes`, `1,200 files`; for nouns that take an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """Return `there are: a, b`, or `there are none`."""
    found = ", ".join(names)
    return f"there are: {found}" if found else "there are none"


def first_of(names: Sequence[str], most: int) -> str:
    """Return `a, b, c`, or `a, b, c and 2 more` where there are more than `most`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def format_size(count: float) -> str:
    """Return bytes as `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_rate(count: float) -> str:
    """Return bytes a second of a network as `1.25 GB/s`: decimal, as those are sold."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB/s"
    if count >= 1e6:
        return f"{count / 1e6:.{0 if count >= 1e7 else 1}f} MB/s"
    return f"{count / 1e3:.0f} kB/s"


def to_micro(dollars: str | Decimal | int) -> MicroUSD:
    """Return micro-dollars for a decimal string of dollars, rounded half-even. Raises ValueError."""
    try:
        return int((Decimal(dollars) * MICRO).to_integral_value(ROUND_HALF_EVEN))
    except (ArithmeticError, ValueError) as error:
        raise ValueError(f"{dollars!r} is not an amount of dollars") from error


def usd(amount: MicroUSD) -> str:
    """Return micro-dollars as a decimal string with six places, the form every JSON report uses."""
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // MICRO}.{abs(amount) % MICRO:06d}"


def format_usd(amount: MicroUSD) -> str:
    """Return micro-dollars for a person: `$12.34`, or `$0.0042` under a cent."""
    if 0 < abs(amount) < 10_000:
        return f"${Decimal(amount) / MICRO:.4f}"
    return f"${Decimal(amount) / MICRO:,.2f}"


def per_hour(price_per_hour: MicroUSD, seconds: int) -> MicroUSD:
    """Return the charge for `seconds` at an hourly price, rounded half-even to a micro-dollar."""
    return divide(price_per_hour * seconds, 3600)


def divide(amount: int, by: int) -> int:
    """Return `amount / by`, rounded half-even; exact, whatever their size. `by` is positive."""
    whole, rest = divmod(amount, by)
    # A tie goes up only from an odd number.
    return whole + (2 * rest + whole % 2 > by)


def iso(moment: datetime) -> str:
    """Return ISO-8601 UTC with a `Z`; naive times are refused (ValueError)."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# The times of beacons and entries are asked for again and again.
@lru_cache(maxsize=1024)
def parse_time(text: str) -> datetime:
    """Return the aware UTC time of an ISO-8601 string. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)
