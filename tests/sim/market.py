"""Spot prices as a seeded step process, and the meter of what EC2 truly charges. Shares no code with `core.bill`.

Each instance pays, second by second from its launch to the moment it is told to go, the price that was in force when
the running instance-hour began; at least 60 seconds; nothing at all where EC2 took it within the first hour.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.facts import OnDemandPrice, PriceRow
from tests.core.worlds import ZONES
from tests.sim.clock import moment

TYPE = "p3.16xlarge"
ON_DEMAND = 24_480_000
TAKEN_BY_EC2 = "Server.SpotInstanceTermination"


@dataclass(frozen=True, slots=True)
class Used:
    """An instance as the meter knows it; times are virtual seconds, `end` None while it runs."""

    zone: str
    lifecycle: str
    launch: float
    end: float | None
    reason: str | None


class Market:
    """The prices of every zone, past and present; they never pass the on-demand price, as spot prices do not."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._times: dict[str, list[float]] = {}
        self._prices: dict[str, list[int]] = {}
        for zone in ZONES:
            self._times[zone] = [-3600.0 - rng.randrange(3600)]
            self._prices[zone] = [rng.randrange(3_000_000, 8_000_000)]

    def move(self, zone: str, now: float, factor: float) -> None:
        """Let the price of `zone` become `factor` times what it was, from `now` on."""
        if self._times[zone][-1] < now:
            self._times[zone].append(float(math.ceil(now)))
            self._prices[zone].append(max(1_000_000, min(ON_DEMAND, round(self._prices[zone][-1] * factor))))

    def price(self, zone: str, at: float) -> int:
        """Return the spot price in force at `at`, in micro-dollars an hour."""
        return self._prices[zone][bisect_right(self._times[zone], at) - 1]

    def history(self, now: float) -> tuple[PriceRow, ...]:
        """Return what DescribeSpotPriceHistory shows: every change so far."""
        return tuple(
            PriceRow(zone, TYPE, moment(time), price)
            for zone in ZONES
            for time, price in zip(self._times[zone], self._prices[zone], strict=True)
            if time <= now
        )

    def on_demand(self) -> dict[str, OnDemandPrice]:
        """Return the on-demand prices by type."""
        return {TYPE: OnDemandPrice(TYPE, ON_DEMAND, "simulated", moment(0))}

    def charge(self, used: Used, now: float) -> int:
        """Return what EC2 charges up to `now` for an instance, in micro-dollars times 3600 (so that it stays exact)."""
        end = now if used.end is None else used.end
        spot = used.lifecycle == "spot"
        if spot and used.end is not None and used.reason == TAKEN_BY_EC2 and end - used.launch <= 3600:
            return 0
        seconds = max(60, math.floor(end) - math.floor(used.launch))
        hours = range(0, seconds, 3600)
        return sum(
            min(3600, seconds - begun) * (self.price(used.zone, used.launch + begun) if spot else ON_DEMAND)
            for begun in hours
        )

    def dearest_hour(self, used: Used, now: float) -> int:
        """Return the highest price an hour that an instance used so far, in micro-dollars."""
        end = now if used.end is None else used.end
        starts = range(math.floor(used.launch), max(math.floor(end), math.floor(used.launch) + 1), 3600)
        return max(self.price(used.zone, start) if used.lifecycle == "spot" else ON_DEMAND for start in starts)

    def charges(self, all_used: Iterable[Used], now: float) -> int:
        """Return what EC2 charges for all of them, in whole micro-dollars rounded down."""
        return sum(self.charge(used, now) for used in all_used) // 3600
