"""The sandbox's spot market: a price process that is a pure function of seed, type, zone and time.

Each pool (a type in a zone) has its own level within what was seen on AWS (bands below, as fractions of the on-demand
price), moves by slow waves and small noise, changes a few times a day, and never leaves its band, so never reaches the
on-demand price. Real prices do not change while a short run lasts; here they do, now and then, so that everything that
reads prices meets it: from the sandbox's birth on, a pool changes about every `LIVE_STEP`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orchestrator.core.units import MicroUSD

HISTORY = timedelta(days=90)
STEP = timedelta(hours=4)
LIVE_STEP = timedelta(minutes=5)
# EC2 states prices to the hundredth of a cent.
TICK = 100
# What spot cost in us-east-1 against on-demand (facts on AWS prices, 2025): lowest and highest zone.
BANDS: dict[str, tuple[float, float]] = {
    "p3": (0.11, 0.26),
    "p3dn": (0.104, 0.123),
    "p4d": (0.23, 0.44),
    "p4de": (0.21, 0.29),
    "p5": (0.38, 0.55),
    "p5en": (0.38, 0.55),
}
OTHER_BAND = (0.25, 0.36)
WAVES = ((timedelta(hours=31), 0.04), (timedelta(days=9), 0.05))
NOISE = 0.02


@dataclass(frozen=True, slots=True)
class Change:
    """From `time` on an hour costs `price` (micro-dollars)."""

    time: datetime
    price: MicroUSD


class SpotMarket:
    """Prices of all pools; `on_demand` maps a type to its hourly price, `birth` is when the sandbox came up (aware)."""

    def __init__(self, seed: int, on_demand: Mapping[str, MicroUSD], birth: datetime) -> None:
        self._seed = seed
        self._on_demand = on_demand
        self._birth = birth

    def price(self, instance_type: str, zone: str, at: datetime) -> MicroUSD:
        """Return the price in force at `at`. Raises KeyError for a type that has no on-demand price."""
        return self.changes(instance_type, zone, at, at)[0].price

    def changes(self, instance_type: str, zone: str, start: datetime, end: datetime) -> list[Change]:
        """Return the change in force at `start` and all later ones up to `end`, oldest first."""
        self._on_demand[instance_type]
        steps = self._steps(instance_type, zone, STEP, start - 2 * STEP, end)
        live = self._steps(instance_type, zone, LIVE_STEP, max(self._birth, start - 3 * LIVE_STEP), end)
        times = sorted({*steps, *(moment for moment in live if moment > self._birth)})
        first = max((index for index, moment in enumerate(times) if moment <= start), default=0)
        due = [moment for moment in times[first:] if moment <= end]
        return [Change(moment, self._price_at(instance_type, zone, moment)) for moment in due]

    def _steps(self, instance_type: str, zone: str, step: timedelta, start: datetime, end: datetime) -> list[datetime]:
        """Return the moments in [start, end] at which a price of a pool changes: one in each slot of length `step`."""
        length = int(step.total_seconds())
        slots = range(int(start.timestamp()) // length, int(end.timestamp()) // length + 1)
        seconds = (
            slot * length + int(self._chance(instance_type, zone, f"{length}/{slot}") * length) for slot in slots
        )
        moments = (datetime.fromtimestamp(second, UTC) for second in seconds)
        return [moment for moment in moments if start <= moment <= end]

    def _price_at(self, instance_type: str, zone: str, moment: datetime) -> MicroUSD:
        low, high = BANDS.get(instance_type.partition(".")[0], OTHER_BAND)
        share = low + (high - low) * self._chance(instance_type, zone, "level")
        for number, (period, size) in enumerate(WAVES):
            phase = self._chance(instance_type, zone, f"phase{number}")
            share *= 1 + size * math.sin(2 * math.pi * (moment.timestamp() / period.total_seconds() + phase))
        share *= 1 + NOISE * (2 * self._chance(instance_type, zone, f"noise{moment.timestamp():.0f}") - 1)
        ceiling = self._on_demand[instance_type]
        # Rounding to a tick may not leave the band either.
        lowest, highest = math.ceil(low * ceiling / TICK), math.floor(high * ceiling / TICK)
        return TICK * min(max(round(share * ceiling / TICK), lowest), highest)

    def _chance(self, instance_type: str, zone: str, what: str) -> float:
        """Return a number in [0, 1) drawn for this pool and `what`, ever the same."""
        digest = hashlib.sha256(f"{self._seed}/{instance_type}/{zone}/{what}".encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56
