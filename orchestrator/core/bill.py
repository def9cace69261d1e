"""What a run cost: every instance-hour at the price that was in force, beside the on-demand price. Pure.

The rule, printed with every bill (`RULE`), is that of facts on EC2 spot billing: per second with a 60-second minimum,
an hour's price being the one in force when that instance-hour began (AWS, "New spot pricing model", 2017); an instance
that EC2 itself interrupts within its first hour is not charged (AWS, "Billing for interrupted Spot Instances"), which
makes the low bound, the seconds used the high one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from orchestrator.core.facts import EC2_INTERRUPTED, Instance, Lifecycle, OnDemandPrice, PriceRow, Volume
from orchestrator.core.units import MicroUSD, divide, iso, per_hour, usd

RULE = (
    "from LaunchTime to the transition time EC2 gives, whole seconds rounded up, at least 60; each instance-hour at "
    "the price in force when it began; each hour's line rounded half-even to a micro-dollar; totals are sums of "
    "rounded lines"
)
MINIMUM_SECONDS = 60
HOUR = timedelta(hours=1)
# gp3 storage in us-east-1, dollars per GiB-month of 30 days (AWS EBS pricing, 2026); an estimate and marked as one.
GP3_GIB_MONTH: MicroUSD = 80_000
MONTH_SECONDS = 30 * 86_400


@dataclass(frozen=True, slots=True)
class HourLine:
    """One instance-hour, or the part of it that was used: `price` is micro-dollars per hour."""

    start: datetime
    seconds: int
    price: MicroUSD
    usd: MicroUSD


@dataclass(frozen=True, slots=True)
class InstanceBill:
    """The charge of one instance. `low` is 0 where EC2 interrupted it within its first hour, else `usd`."""

    instance_id: str
    instance_type: str
    zone: str
    lifecycle: Lifecycle
    start: datetime
    end: datetime | None
    seconds: int
    end_reason: str | None
    hours: tuple[HourLine, ...]
    usd: MicroUSD
    low: MicroUSD
    on_demand_usd: MicroUSD
    price_known: bool


@dataclass(frozen=True, slots=True)
class OtherLine:
    """A charge that is not an instance's; an estimate from list prices."""

    kind: str
    id: str
    usd: MicroUSD


@dataclass(frozen=True, slots=True)
class Bill:
    """Everything a run cost, all generations together. `final` once every instance has ended."""

    run_id: str
    instances: tuple[InstanceBill, ...]
    other: tuple[OtherLine, ...]
    final: bool
    on_demand_sources: tuple[str, ...] = ()

    @property
    def low(self) -> MicroUSD:
        """The least it can be."""
        return sum(i.low for i in self.instances) + sum(o.usd for o in self.other)

    @property
    def high(self) -> MicroUSD:
        """The most it can be; never below the truth."""
        return sum(i.usd for i in self.instances) + sum(o.usd for o in self.other)

    @property
    def on_demand(self) -> MicroUSD:
        """The same seconds at the on-demand price, with the same volumes."""
        return sum(i.on_demand_usd for i in self.instances) + sum(o.usd for o in self.other)

    @property
    def saving(self) -> MicroUSD:
        """On-demand less the high bound."""
        return self.on_demand - self.high

    def to_json(self) -> dict[str, Any]:
        """Return the documented JSON form: dollars as strings with six places, times as ISO-8601 UTC."""
        return {
            "run_id": self.run_id,
            "final": self.final,
            "spot_usd_low": usd(self.low),
            "spot_usd_high": usd(self.high),
            "on_demand_usd": usd(self.on_demand),
            "saving": usd(self.saving),
            "on_demand_sources": list(self.on_demand_sources),
            "rule": RULE,
            "instances": [_instance_json(item) for item in self.instances],
            "other": [{"kind": o.kind, "id": o.id, "usd": usd(o.usd), "estimate": True} for o in self.other],
        }


def _instance_json(item: InstanceBill) -> dict[str, Any]:
    return {
        "instance_id": item.instance_id,
        "instance_type": item.instance_type,
        "zone": item.zone,
        "lifecycle": item.lifecycle,
        "start": iso(item.start),
        "end": iso(item.end) if item.end else None,
        "seconds": item.seconds,
        "end_reason": item.end_reason,
        "price_known": item.price_known,
        "hours": [
            {"start": iso(h.start), "seconds": h.seconds, "price_usd": usd(h.price), "usd": usd(h.usd)}
            for h in item.hours
        ],
        "usd": usd(item.usd),
        "usd_low": usd(item.low),
        "on_demand_usd": usd(item.on_demand_usd),
    }


def make_bill(
    run_id: str,
    instances: Iterable[Instance],
    prices: Sequence[PriceRow],
    on_demand: Mapping[str, OnDemandPrice],
    now: datetime,
) -> Bill:
    """Return the bill of `instances` (any order, all generations); those still alive are charged up to `now`."""
    ordered = sorted(instances, key=lambda i: (i.launch_time, i.generation, i.launch_index, i.instance_id))
    lines = tuple(bill_instance(item, prices, on_demand, now) for item in ordered)
    other = tuple(
        OtherLine("ebs", volume.volume_id, ebs_charge(volume, line.seconds))
        for item, line in zip(ordered, lines, strict=True)
        for volume in item.volumes
    )
    used = sorted({line.instance_type for line in lines})
    sources = tuple(f"{t}: {on_demand[t].source}, read {iso(on_demand[t].time)}" for t in used if t in on_demand)
    return Bill(run_id, lines, other, all(not item.alive for item in ordered), sources)


def bill_instance(
    item: Instance, prices: Sequence[PriceRow], on_demand: Mapping[str, OnDemandPrice], now: datetime
) -> InstanceBill:
    """Return the charge of one instance.

    Where no spot price is known for an hour it is charged at the on-demand price, the ceiling of a spot request
    without a maximum, so that the bill never under-reports; `price_known` is then False.
    """
    end = item.end_time or now
    seconds = max(MINIMUM_SECONDS, math.ceil((end - item.launch_time).total_seconds()))
    listed = on_demand.get(item.instance_type)
    ceiling = listed.price if listed else 0
    rows = [r for r in prices if r.zone == item.zone and r.instance_type == item.instance_type]
    known = True
    hours: list[HourLine] = []
    list_hours: list[MicroUSD] = []
    for start, used in split_hours(item.launch_time, seconds):
        found = price_in_force(rows, start) if item.lifecycle == "spot" else ceiling
        known = known and found is not None and (item.lifecycle == "spot" or listed is not None)
        price = ceiling if found is None else found
        hours.append(HourLine(start, used, price, per_hour(price, used)))
        list_hours.append(per_hour(ceiling, used))
    charge = sum(line.usd for line in hours)
    taken_early = item.lifecycle == "spot" and item.end_reason in EC2_INTERRUPTED and seconds <= 3600
    return InstanceBill(
        item.instance_id,
        item.instance_type,
        item.zone,
        item.lifecycle,
        item.launch_time,
        item.end_time,
        seconds,
        item.end_reason,
        tuple(hours),
        charge,
        0 if taken_early else charge,
        sum(list_hours),
        known,
    )


def split_hours(start: datetime, seconds: int) -> list[tuple[datetime, int]]:
    """Return the instance-hours of `seconds` from `start`: their beginnings and the seconds used of each."""
    return [(start + index * HOUR, min(3600, seconds - 3600 * index)) for index in range(math.ceil(seconds / 3600))]


def price_in_force(rows: Iterable[PriceRow], moment: datetime) -> MicroUSD | None:
    """Return the price of the last change at or before `moment`, or None when there is none."""
    newest = max((row for row in rows if row.time <= moment), key=attrgetter("time"), default=None)
    return newest.price if newest is not None else None


def ebs_charge(volume: Volume, seconds: int) -> MicroUSD:
    """Return the storage charge of a gp3 volume: per second, at least 60 (AWS EBS pricing)."""
    return divide(GP3_GIB_MONTH * volume.size_gib * max(MINIMUM_SECONDS, seconds), MONTH_SECONDS)
