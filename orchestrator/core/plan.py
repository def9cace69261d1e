"""What a run could be launched as, what each way would cost, and in which order to try them. Pure.

May not call anything: the market (prices, offerings, quotas) is observed elsewhere and handed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.core import catalog, forecast
from orchestrator.core.estimates import planned_hourly
from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import Lifecycle, OnDemandPrice, PriceRow
from orchestrator.core.forecast import Earlier, Forecast
from orchestrator.core.uniform import BOOT_ALLOWANCE, TIGHT, by_deadline
from orchestrator.core.units import MicroUSD, per_hour
from orchestrator.core.volumes import DataVolume, Gp3, fee, provision

TEARDOWN_ALLOWANCE = timedelta(minutes=10)
# A spot price may rise while nobody watches; the nodes' own timers assume it by this factor (never above on-demand).
PRICE_HEADROOM = 1.25
# A machine costs from its launch on; its timer runs from when it has booted so far.
ARMING_ALLOWANCE = timedelta(minutes=2)
SHORTEST_TIMER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to get the whole gang: a type in a zone, spot or on-demand. Prices are micro-dollars per node-hour.

    `hours` is the expected run time (None: unknown, then `cost` is that of max_duration, an upper bound); `cost` is
    for all nodes, their data volumes included. `efa` is the number of EFA interfaces a node is launched with.
    """

    instance_type: str
    zone: str
    lifecycle: Lifecycle
    price: MicroUSD
    on_demand: MicroUSD
    hours: float | None
    cost: MicroUSD
    on_demand_cost: MicroUSD
    subnet: str
    quota_code: str
    placement_group: bool
    efa: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` is its inverse."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Offer:
        """Return the offer written by `to_json`."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class QuotaLine:
    """vCPUs needed of a quota, and held (None: the service did not say)."""

    code: str
    lifecycle: Lifecycle
    instance_type: str
    needed: int
    held: int | None

    @property
    def enough(self) -> bool:
        """Whether the quota is not known to be too small."""
        return self.held is None or self.held >= self.needed


@dataclass(frozen=True, slots=True)
class Market:
    """What EC2 offers and charges now. `offerings` maps a type to its zones, `subnets` a zone to its subnet.

    `spot` holds the prices up to `now`, those of the last days where they are known, `earlier` runs that have finished.
    `efa` is how many EFA interfaces a type takes, `private` are the zones whose subnet gives no public addresses.
    """

    offerings: Mapping[str, tuple[str, ...]]
    spot: tuple[PriceRow, ...]
    on_demand: Mapping[str, OnDemandPrice]
    quotas: Mapping[str, int | None]
    subnets: Mapping[str, str]
    vcpus: Mapping[str, int] = field(default_factory=dict)
    earlier: tuple[Earlier, ...] = ()
    now: datetime | None = None
    efa: Mapping[str, int] = field(default_factory=dict)
    private: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """The offers in the order they will be tried, and why others were left out (`rejected`: what, reason).

    `forecasts` has a range for each offer, None where nothing says how long the run will take.
    """

    num_nodes: int
    offers: tuple[Offer, ...]
    rejected: tuple[tuple[str, str], ...]
    quotas: tuple[QuotaLine, ...]
    timer: timedelta
    forecasts: tuple[Forecast | None, ...] = ()

    def forecast(self, index: int) -> Forecast | None:
        """Return the range of an offer, None without one."""
        return self.forecasts[index] if index < len(self.forecasts) else None


def make_plan(experiment: Experiment, num_nodes: int, market: Market, volumes: Sequence[DataVolume] = ()) -> Plan:
    """Return the plan for `num_nodes` nodes; `offers` is empty when nothing can be had (`rejected` says why).

    `volumes` are those that every node gets beside its root.
    """
    offers: list[Offer] = []
    rejected: list[tuple[str, str]] = []
    quotas: list[QuotaLine] = []
    types = [option.instance_type for option in experiment.resources.any_of]
    for instance_type in types:
        zones = market.offerings.get(instance_type, ())
        if not zones:
            rejected.append((instance_type, "EC2 does not offer it in this region"))
            continue
        for lifecycle in _lifecycles(experiment):
            line = _quota(instance_type, lifecycle, num_nodes, market)
            quotas.append(line)
            if not line.enough:
                rejected.append(
                    (f"{instance_type} {lifecycle}", f"quota {line.code}: {line.held} of {line.needed} vCPU")
                )
                continue
            for zone in zones:
                made = _offer(experiment, num_nodes, market, instance_type, zone, lifecycle, types[0])
                if isinstance(made, Offer):
                    made = _with_volumes(made, num_nodes, volumes, experiment.max_duration)
                offers.append(made) if isinstance(made, Offer) else rejected.append((f"{instance_type} {zone}", made))
    lifecycles = {name: index for index, name in enumerate(_lifecycles(experiment))}
    offers.sort(key=lambda o: (lifecycles[o.lifecycle], o.cost, types.index(o.instance_type), o.zone))
    timer = node_timer(experiment, num_nodes, offers, volumes)
    forecasts = tuple(_forecast(experiment, num_nodes, market, offer, types[0], volumes) for offer in offers)
    return Plan(num_nodes, tuple(offers), tuple(rejected), tuple(quotas), timer, forecasts)


def _lifecycles(experiment: Experiment) -> tuple[Lifecycle, ...]:
    if experiment.spot_policy == "on-demand" or not experiment.resources.use_spot:
        return ("on-demand",)
    if by_deadline(experiment, 0.0, timedelta()) == TIGHT:
        return TIGHT
    return ("spot", "on-demand") if experiment.spot_policy == "auto" else ("spot",)


def _quota(instance_type: str, lifecycle: Lifecycle, num_nodes: int, market: Market) -> QuotaLine:
    known = catalog.TYPES.get(instance_type)
    vcpus = market.vcpus.get(instance_type) or (known.vcpus if known else 0)
    code = quota_code(instance_type, lifecycle)
    return QuotaLine(code, lifecycle, instance_type, vcpus * num_nodes, market.quotas.get(code))


def quota_code(instance_type: str, lifecycle: Lifecycle) -> str:
    """Return the service-quotas code that counts this type's vCPUs (standard families where the type is not known)."""
    known = catalog.TYPES.get(instance_type)
    if lifecycle == "spot":
        return known.spot_quota if known else catalog.SPOT_QUOTA_STANDARD
    return known.on_demand_quota if known else catalog.ON_DEMAND_QUOTA_STANDARD


def _offer(  # noqa: PLR0917 - the coordinates of one cell of the table
    experiment: Experiment,
    num_nodes: int,
    market: Market,
    instance_type: str,
    zone: str,
    lifecycle: Lifecycle,
    reference: str,
) -> Offer | str:
    """Return the offer, or the reason why there is none."""
    listed = market.on_demand.get(instance_type)
    if listed is None:
        return "no on-demand price is published, so the saving cannot be stated"
    price: MicroUSD | None = listed.price
    if lifecycle == "spot":
        rows = [row for row in market.spot if row.zone == zone and row.instance_type == instance_type]
        price = max(rows, key=lambda row: row.time).price if rows else None
    if price is None:
        return "no spot price in this zone"
    if zone not in market.subnets:
        return "the default VPC has no subnet in this zone"
    span = forecast.hours(experiment, instance_type, reference, BOOT_ALLOWANCE, market.earlier)
    hours = None if span is None else span.middle
    seconds = round((hours * 3600) if hours is not None else experiment.max_duration.total_seconds())
    return Offer(
        instance_type=instance_type,
        zone=zone,
        lifecycle=lifecycle,
        price=price,
        on_demand=listed.price,
        hours=hours,
        cost=num_nodes * per_hour(price, seconds),
        on_demand_cost=num_nodes * per_hour(listed.price, seconds),
        subnet=market.subnets[zone],
        quota_code=quota_code(instance_type, lifecycle),
        # EC2 refuses burstable types in a cluster placement group, and one node needs none.
        placement_group=num_nodes > 1 and not instance_type.startswith("t"),
        efa=_efa(instance_type, zone, market),
    )


def gp3_for(volume: DataVolume, offer: Offer, limit: timedelta) -> Gp3:
    """Return how a volume is provisioned in a launch; `limit` is how long the run lasts at most."""
    known = catalog.TYPES.get(offer.instance_type)
    fits = catalog.holds_in_memory(offer.instance_type, volume.bytes)
    ebs_mbyte = known.ebs_mbyte if known else 0.0
    return provision(volume, offer.price, hours_of(offer, limit), ebs_mbyte, in_memory=fits)


def hours_of(offer: Offer, limit: timedelta) -> float:
    """Return the hours that `cost` is of."""
    return offer.hours if offer.hours is not None else limit / timedelta(hours=1)


def volume_fees(volumes: Iterable[DataVolume], offer: Offer, limit: timedelta, hours: float) -> MicroUSD:
    """Return what a node's volumes cost in `hours`; that they are initialised is charged at once, dollars maybe."""
    return sum(fee(volume, gp3_for(volume, offer, limit), hours) for volume in volumes)


def _with_volumes(offer: Offer, num_nodes: int, volumes: Iterable[DataVolume], limit: timedelta) -> Offer:
    fees = num_nodes * volume_fees(volumes, offer, limit, hours_of(offer, limit))
    return replace(offer, cost=offer.cost + fees, on_demand_cost=offer.on_demand_cost + fees)


def _efa(instance_type: str, zone: str, market: Market) -> int:
    """Return how many EFA interfaces to launch with: of a type with several, all only where that costs nothing else.

    EC2 gives no public address to what is launched with more than one interface. Nodes need one wherever the subnet
    gives it, as nothing else leads them to S3 there.
    """
    most = market.efa.get(instance_type, 0)
    return most if zone in market.private else min(most, 1)


def _forecast(  # noqa: PLR0917 - all that a range is made of
    experiment: Experiment,
    num_nodes: int,
    market: Market,
    offer: Offer,
    reference: str,
    volumes: Sequence[DataVolume],
) -> Forecast | None:
    hours = forecast.hours(experiment, offer.instance_type, reference, BOOT_ALLOWANCE, market.earlier)
    if hours is None:
        return None
    rows = [row for row in market.spot if row.zone == offer.zone and row.instance_type == offer.instance_type]
    now = market.now or max((row.time for row in rows), default=None)
    moves = offer.lifecycle == "spot" and now is not None
    price = forecast.prices(rows, timedelta(hours=hours.high), now) if moves and now is not None else forecast.LISTED
    hourly, limit = planned_hourly(experiment.resources.disk_size), experiment.max_duration
    least, most = (hourly * span + volume_fees(volumes, offer, limit, span) for span in (hours.low, hours.high))
    return forecast.combine(hours, price, num_nodes, offer.price, offer.on_demand, (least, most))


def node_timer(
    experiment: Experiment,
    num_nodes: int,
    offers: Sequence[Offer],
    volumes: Sequence[DataVolume] = (),
    spent: MicroUSD = 0,
) -> timedelta:
    """Return how long a node lives without a scheduler: max_duration, or less where max_cost would be passed.

    `spent` is what the run has cost before this gang is launched, to which comes what its `volumes` cost at once.
    """
    limit = experiment.max_duration + TEARDOWN_ALLOWANCE
    cap = experiment.max_cost_micro
    if cap is not None and offers:
        dearest = max(min(round(o.price * PRICE_HEADROOM), max(o.on_demand, o.price)) for o in offers)
        begun = spent + num_nodes * max(volume_fees(volumes, o, experiment.max_duration, 0.0) for o in offers)
        limit = min(limit, timedelta(hours=max(0, cap - begun) / (dearest * num_nodes)) - ARMING_ALLOWANCE)
    return timedelta(minutes=max(1, math.floor(limit / timedelta(minutes=1))))
