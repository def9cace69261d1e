"""What a run cost: every instance-hour at the price that was in force, beside the on-demand price. Pure.

The rule, printed with every bill (`RULE`), is that of facts on EC2 spot billing: per second with a 60-second minimum,
an hour's price being the one in force when that instance-hour began (AWS, "New spot pricing model", 2017); an instance
that EC2 itself interrupts within its first hour is not charged (AWS, "Billing for interrupted Spot Instances"), which
makes the low bound, the seconds used the high one. What is not a machine is estimated (`core.estimates`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from orchestrator.core.estimates import (
    MINIMUM_SECONDS,
    S3Use,
    ebs_charge,
    initialisation_charge,
    ipv4_charge,
    s3_requests,
    s3_storage,
)
from orchestrator.core.facts import EC2_INTERRUPTED, Instance, Lifecycle, OnDemandPrice, PriceRow
from orchestrator.core.units import MicroUSD, iso, per_hour, usd

RULE = (
    "from LaunchTime to the transition time EC2 gives, whole seconds rounded up, at least 60; each instance-hour at "
    "the price in force when it began; each hour's line rounded half-even to a micro-dollar; totals are sums of "
    "rounded lines"
)
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class HourLine:
    """One instance-hour, or the part of it that was used: `price` is micro-dollars per hour."""

    start: datetime
    seconds: int
    price: MicroUSD
    usd: MicroUSD


@dataclass(frozen=True, slots=True)
class InstanceBill:
    """The charge of one instance: at most `usd`, at least `low`.

    `low` is 0 where EC2 interrupted it within its first hour or has not said why it ended then, and leaves out hours
    whose price is not known.
    """

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


# All that is not an instance, in one word wherever it is added up.
OTHER = "disks, addresses, S3"


@dataclass(frozen=True, slots=True)
class OtherLine:
    """A charge that is not an instance's; an estimate from list prices."""

    kind: str
    id: str
    usd: MicroUSD


@dataclass(frozen=True, slots=True)
class Bill:
    """Everything a run cost, all generations together. `final` once every instance has ended.

    `reconciliation` is what came of holding it against AWS's own files (`core.reconcile`), None where nobody has.
    """

    run_id: str
    instances: tuple[InstanceBill, ...]
    other: tuple[OtherLine, ...]
    final: bool
    on_demand_sources: tuple[str, ...] = ()
    reconciliation: Mapping[str, Any] | None = None

    @property
    def machines(self) -> MicroUSD:
        """The instances alone, high bound."""
        return sum(i.usd for i in self.instances)

    @property
    def low(self) -> MicroUSD:
        """The least it can be."""
        return sum(i.low for i in self.instances) + sum(o.usd for o in self.other)

    @property
    def high(self) -> MicroUSD:
        """The most it can be; never below the truth."""
        return self.machines + sum(o.usd for o in self.other)

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
        } | ({} if self.reconciliation is None else {"reconciliation": dict(self.reconciliation)})


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
    *,
    s3: S3Use | None = None,
) -> Bill:
    """Return the bill of `instances` (any order, all generations); those still alive are charged up to `now`.

    Without `s3` it has no lines for requests and storage.
    """
    ordered = sorted(instances, key=lambda i: (i.launch_time, i.generation, i.launch_index, i.instance_id))
    pools: dict[tuple[str, str], list[PriceRow]] = {}
    for row in prices:
        pools.setdefault((row.zone, row.instance_type), []).append(row)
    lines = tuple(bill_instance(i, pools.get((i.zone, i.instance_type), ()), on_demand, now) for i in ordered)
    other = _estimates(list(zip(ordered, lines, strict=True)), run_id, s3)
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
    low = 0
    for start, used in split_hours(item.launch_time, seconds):
        found = price_in_force(rows, start) if item.lifecycle == "spot" else ceiling
        known = known and found is not None and (item.lifecycle == "spot" or listed is not None)
        price = ceiling if found is None else found
        hours.append(HourLine(start, used, price, per_hour(price, used)))
        list_hours.append(per_hour(ceiling, used))
        low += 0 if found is None else hours[-1].usd
    charge = sum(line.usd for line in hours)
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
        0 if _may_be_free(item, seconds) else low,
        sum(list_hours),
        known,
    )


def _may_be_free(item: Instance, seconds: int) -> bool:
    """Whether AWS waives it, or may: EC2 took it within the first hour, or it ended then and EC2 has not said why."""
    ended = item.end_reason in EC2_INTERRUPTED or (item.end_time is not None and item.end_reason is None)
    return item.lifecycle == "spot" and ended and seconds <= 3600


def _estimates(billed: Sequence[tuple[Instance, InstanceBill]], run_id: str, s3: S3Use | None) -> tuple[OtherLine, ...]:
    """Return the lines that are not machines: volumes, addresses, and S3 where its use is known."""
    volumes = [(v, line.seconds) for item, line in billed for v in item.volumes]
    found = [OtherLine("ebs", v.volume_id, ebs_charge(v, used) + initialisation_charge(v)) for v, used in volumes]
    addresses = [(line.instance_id, ipv4_charge(item, line.seconds)) for item, line in billed]
    found += [OtherLine("ipv4", instance_id, cost) for instance_id, cost in addresses if cost is not None]
    if s3 is not None and billed:
        seconds = sum(line.seconds for _, line in billed)
        ends = [line.start + timedelta(seconds=line.seconds) for _, line in billed]
        length = int((max(ends) - min(line.start for _, line in billed)).total_seconds())
        found += [OtherLine("s3-requests", run_id, s3_requests(s3, seconds))]
        found += [OtherLine("s3-storage", run_id, s3_storage(s3, length))]
    return tuple(found)


def split_hours(start: datetime, seconds: int) -> list[tuple[datetime, int]]:
    """Return the instance-hours of `seconds` from `start`: their beginnings and the seconds used of each."""
    return [(start + index * HOUR, min(3600, seconds - 3600 * index)) for index in range(math.ceil(seconds / 3600))]


def price_in_force(rows: Iterable[PriceRow], moment: datetime) -> MicroUSD | None:
    """Return the price of the last change at or before `moment`, or None when there is none."""
    newest = max((row for row in rows if row.time <= moment), key=attrgetter("time"), default=None)
    return newest.price if newest is not None else None
