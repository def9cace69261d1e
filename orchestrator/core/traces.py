"""Traces as values: how many nodes each zone had over time, and what a node-hour cost there. Pure.

May not read files (`run.traces` does) and may not decide anything. Time is whole seconds since the trace began; all
traces begin together. Zones are known by their index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.core.estimates import MINIMUM_SECONDS
from orchestrator.core.facts import Lifecycle
from orchestrator.core.units import MicroUSD, per_hour

HOUR = 3600


class Sample(NamedTuple):
    """The market from `time` on: nodes each zone can hold (those held already included), and zones cheapest first."""

    time: int
    capacity: tuple[int, ...]
    by_price: tuple[int, ...]


class Rental(NamedTuple):
    """`nodes` machines that were held together, from launch to the end of what is paid, in trace seconds."""

    zone: int
    lifecycle: Lifecycle
    nodes: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Traces:
    """Nodes obtainable, `capacity[zone][sample]`; a sample holds for `gap` seconds. Zones have equally many samples."""

    zones: tuple[str, ...]
    gap: int
    capacity: tuple[tuple[int, ...], ...]

    @property
    def seconds(self) -> int:
        """How long the traces last."""
        return len(self.capacity[0]) * self.gap


@dataclass(frozen=True, slots=True)
class Prices:
    """Micro-dollars per node-hour: `spot[zone][sample]`, each for `gap` seconds, the last one for good; `on_demand`."""

    gap: int
    spot: tuple[tuple[MicroUSD, ...], ...]
    on_demand: MicroUSD

    def at(self, zone: int, time: int) -> MicroUSD:
        """Return the spot price in force."""
        series = self.spot[zone]
        return series[min(time // self.gap, len(series) - 1)]

    def charge(self, rental: Rental) -> MicroUSD:
        """Return what a rental costs by the rule of `core.bill`: each hour at the price in force when it began."""
        seconds = max(MINIMUM_SECONDS, rental.end - rental.start)
        hours, rest = divmod(seconds, HOUR)
        if rental.lifecycle == "on-demand":
            return rental.nodes * (hours * self.on_demand + per_hour(self.on_demand, rest))
        whole = sum(self.at(rental.zone, rental.start + hour * HOUR) for hour in range(hours))
        last = per_hour(self.at(rental.zone, rental.start + hours * HOUR), rest) if rest else 0
        return rental.nodes * (whole + last)


def samples(traces: Traces, prices: Prices, zones: Sequence[int], *, every: bool = False) -> tuple[Sample, ...]:
    """Return the samples at which anything changed for somebody who looks at `zones`; with `every`, all of them."""
    found: list[Sample] = []
    before: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    for index, capacity in enumerate(zip(*traces.capacity, strict=True)):
        time = index * traces.gap
        by_price = tuple(sorted(zones, key=lambda zone: (prices.at(zone, time), zone)))
        seen = (tuple(capacity[zone] for zone in zones), by_price)
        if every or seen != before:
            found.append(Sample(time, capacity, by_price))
            before = seen
    return tuple(found)
