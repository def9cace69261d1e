"""The sandbox's own meter: what it charges for its machines, counted second by second from its price feed.

It shares nothing with `core.bill`, which it exists to check: that sees what EC2 describes (LaunchTime, transition time,
price history), this sees what happened. Like EC2's records it knows whole seconds of the clock: one is charged when the
machine was running as it ended, at least 60, each at the price in force when that hour of the instance, counted from
its launch, began; each hour is rounded half-even to a micro-dollar. What EC2 takes within the first hour is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

from orchestrator.core.units import MicroUSD

MINIMUM = 60
HOUR = 3600
PriceAt = Callable[[datetime], MicroUSD]


@dataclass(slots=True)
class Life:
    """One machine from launch to end, as it happened: aware times, to the microsecond.

    `ran` is when it left pending, `ended` when it left running; `taken` whether EC2 took it.
    """

    instance_id: str
    instance_type: str
    zone: str
    spot: bool
    launched: datetime
    ran: datetime | None = None
    ended: datetime | None = None
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What the meter shows for a machine: seconds charged and micro-dollars."""

    seconds: int
    usd: MicroUSD


def read_meter(life: Life, price_at: PriceAt, now: datetime) -> Reading:
    """Return what `life` has cost until `now`; `price_at` is the feed of its type and zone."""
    end = life.ended or now
    if life.ran is None or (life.spot and life.taken and end - life.launched < timedelta(seconds=HOUR)):
        return Reading(0, 0)
    born = life.launched.replace(microsecond=0)
    first, last = _whole_seconds(life.ran - born), _whole_seconds(end - born)
    used: dict[int, int] = {}
    for second in range(first, max(last, first + MINIMUM)):
        hour = second // HOUR if second < last else first // HOUR
        used[hour] = used.get(hour, 0) + 1
    rates = {hour: price_at(born + timedelta(seconds=hour * HOUR)) for hour in used}
    return Reading(sum(used.values()), sum(round(Fraction(rates[hour] * used[hour], HOUR)) for hour in used))


def _whole_seconds(span: timedelta) -> int:
    return span // timedelta(seconds=1)
