"""What spot prices did over a time: now, the range, the mean, zone by zone. Pure; rows are read elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.bill import price_in_force
from orchestrator.core.facts import PriceRow
from orchestrator.core.units import MicroUSD


@dataclass(frozen=True, slots=True)
class Pool:
    """One type in one zone, from `start` to `end`. `mean` is weighted by how long each price was in force.

    `rows` are the changes in order of time; the first may be from before `start`, the price in force then.
    """

    zone: str
    start: datetime
    end: datetime
    rows: tuple[PriceRow, ...]

    @property
    def now(self) -> MicroUSD:
        """The newest price."""
        return self.rows[-1].price

    @property
    def low(self) -> MicroUSD:
        """The lowest price."""
        return min(row.price for row in self.rows)

    @property
    def high(self) -> MicroUSD:
        """The highest price."""
        return max(row.price for row in self.rows)

    @property
    def mean(self) -> MicroUSD:
        """The mean price over the time that is known."""
        begins = [max(row.time, self.start) for row in self.rows]
        seconds = [(b - a).total_seconds() for a, b in zip(begins, [*begins[1:], self.end], strict=True)]
        known = sum(seconds)
        if known <= 0:
            return self.now
        return round(sum(row.price * used for row, used in zip(self.rows, seconds, strict=True)) / known)

    def samples(self, count: int) -> list[MicroUSD]:
        """Return the price in force at `count` moments spread evenly up to the end; none before the first change."""
        moments = [self.start + (self.end - self.start) * (index + 1) / count for index in range(count)]
        found = [price_in_force(self.rows, moment) for moment in moments]
        return [price for price in found if price is not None]


def find_pools(rows: Iterable[PriceRow], start: datetime, end: datetime) -> tuple[Pool, ...]:
    """Return the pools of one type's price rows, the cheapest now first."""
    by_zone: dict[str, list[PriceRow]] = {}
    for row in sorted(rows, key=lambda row: row.time):
        by_zone.setdefault(row.zone, []).append(row)
    pools = [Pool(zone, start, end, tuple(found)) for zone, found in by_zone.items()]
    return tuple(sorted(pools, key=lambda pool: (pool.now, pool.zone)))


def without_price(zones: Sequence[str], pools: Iterable[Pool]) -> list[str]:
    """Return the zones that offer the type but show no spot price."""
    priced = {pool.zone for pool in pools}
    return [zone for zone in zones if zone not in priced]
