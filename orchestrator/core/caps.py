"""The caps of a run: what it has left, when it must be saved and ended, until when its nodes may live. Pure.

A run is saved and ended while there is still money and time for it: `checkpoint_grace` for the training, `TEARDOWN` for
the uploads and the end of the machines. Nodes have timers of their own for when no scheduler lives. They are armed for
the moment at which the caps would be passed, and armed anew when a price, a loss or a user moves that moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from orchestrator.core.actions import Action, Arm
from orchestrator.core.bill import HOUR, Bill
from orchestrator.core.estimates import hourly_estimates
from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.health import ENDED
from orchestrator.core.ledger import LedgerState, Verdict
from orchestrator.core.plan import (
    ARMING_ALLOWANCE,
    PRICE_HEADROOM,
    SHORTEST_TIMER,
    TEARDOWN_ALLOWANCE,
    Offer,
    volume_fees,
)
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import MICRO, MicroUSD, counted, format_duration, format_usd, per_hour
from orchestrator.core.volumes import DataVolume

# What comes after the training has had its time to save: the last uploads, the end of the machines, a slow tick.
TEARDOWN = timedelta(seconds=75)
# Of it: how long what a training left is waited for to be in S3 after its time to save, and after the verdict.
SETTLING, DRAIN = timedelta(seconds=10), timedelta(seconds=20)
# From a timer that fires, or a call that terminates, to the end of what is charged.
TERMINATION = timedelta(seconds=30)
WARNED_AT = (95, 80, 50)
RAISE = "`orch resume --max-cost DOLLARS` goes on from there with more money, `--max-duration TIME` with more time"
# A timer that is within this much of what it should be is left as it is.
ARMED_WELL = timedelta(seconds=20)
ARMED_WELL_SHARE = 0.1
# `shutdown` counts whole minutes. A timer is armed anew when little of one is lost by that, seconds past the minute; at
# once where it is too late, or so early that the training is soon stopped.
GOOD_MOMENT = range(5, 16)
SOON = timedelta(seconds=90)


@dataclass(frozen=True, slots=True)
class Caps:
    """Caps that a user asks for; None leaves one as it is."""

    max_cost: MicroUSD | None = None
    max_duration: timedelta | None = None

    def to_json(self) -> dict[str, int]:
        """Return what a wish in the ledger says: micro-dollars and seconds."""
        seconds = None if self.max_duration is None else round(self.max_duration.total_seconds())
        values = {"max_cost": self.max_cost, "max_duration": seconds}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Near:
    """A cap that is near: `text` says so of a run, `key` names it for those who say it once."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Spend:
    """What a run has cost, and what it costs a second, micro-dollars; `prepaid` of the former is for time to come."""

    so_far: MicroUSD
    per_second: MicroUSD
    prepaid: MicroUSD


def spend_of(bill: Bill, facts: Facts) -> Spend:
    """Return what `bill`, made at the time of `facts`, says of now and of the next seconds; high bounds."""
    alive = {item.instance_id: item for item in facts.instances if item.alive}
    lines = [line for line in bill.instances if line.instance_id in alive]
    hourly = sum(line.hours[-1].price + hourly_estimates(alive[line.instance_id]) for line in lines)
    ahead = [(line, line.seconds - (facts.server_time - line.start) // timedelta(seconds=1) - 1) for line in lines]
    prepaid = sum(per_hour(line.hours[-1].price, max(0, seconds)) for line, seconds in ahead)
    return Spend(bill.high, -(-hourly // 3600), prepaid)


def in_force(spec: RunSpec, ledger: LedgerState) -> RunSpec:
    """Return the spec with what took the place of its own since the launch: caps, and at a resume image and volumes."""
    caps: dict[str, object] = {}
    if ledger.max_cost is not None:
        caps["max_cost"] = Decimal(ledger.max_cost) / MICRO
    if ledger.max_duration is not None:
        caps["max_duration"] = ledger.max_duration
    if not (caps or ledger.image or ledger.volumes):
        return spec
    experiment = spec.experiment.model_copy(update=caps)
    return replace(
        spec, experiment=experiment, image=ledger.image or spec.image, volumes=ledger.volumes or spec.volumes
    )


def age(spec: RunSpec, ledger: LedgerState, now: datetime) -> timedelta:
    """Return how long the run has lasted since it was launched or resumed: what `max_duration` is held against."""
    return now - (ledger.generation_began or spec.created)


def _has_lasted(ledger: LedgerState, lasted: timedelta) -> str:
    since = " since it was resumed" if ledger.resumed else ""
    return f"has lasted {format_duration(lasted)}{since}"


def cost_in(facts: Facts, span: timedelta) -> MicroUSD:
    """Return what the run will have cost in `span` from now, at the prices in force."""
    ahead = facts.cost_per_second * round(span.total_seconds())
    return facts.cost_so_far + max(0, ahead - facts.cost_prepaid)


def cap_reached(spec: RunSpec, ledger: LedgerState, facts: Facts, needed: timedelta | None = None) -> str | None:
    """Return the cap that would be passed if the run went on, None while there is none: `max_cost of $60.00`.

    `needed` is how long it must be able to live on, by default what it takes to save and end it.
    """
    grace, limit = spec.experiment.checkpoint_grace, spec.experiment.max_duration
    # The shortest of runs have no minute to spare for their end.
    end = min(TEARDOWN, limit / 10) if needed is None else timedelta()
    if age(spec, ledger, facts.server_time) + (needed or grace) + end >= limit:
        return f"max_duration of {format_duration(limit)}"
    cap = spec.experiment.max_cost_micro
    if cap is not None and cost_in(facts, (needed or grace) + TEARDOWN) >= cap:
        return f"max_cost of {format_usd(cap)}"
    return None


def cost_of_least(spec: RunSpec, offer: Offer) -> MicroUSD:
    """Return the least that a gang on an offer costs, whoever ends it: nothing less is launched."""
    return spec.num_nodes * cost_of_least_node(spec.experiment, offer, spec.volumes)


def cost_of_least_node(experiment: Experiment, offer: Offer, volumes: Iterable[DataVolume] = ()) -> MicroUSD:
    """Return what one node of that gang costs."""
    least = max(experiment.checkpoint_grace + TEARDOWN, SHORTEST_TIMER + ARMING_ALLOWANCE)
    fees = volume_fees(volumes, offer, experiment.max_duration, least / HOUR)
    return per_hour(offer.price, round(least.total_seconds())) + fees


def extend_faults(spec: RunSpec, ledger: LedgerState, spend: Spend, now: datetime, caps: Caps) -> list[str]:
    """Return why a run cannot have `caps`, each reason a line: none where it can. Less than it has is no fault."""
    if ledger.closed and ledger.verdict is not None:
        return [f"it has ended: {ledger.verdict.kind}"]
    faults = []
    if ledger.stop is not None or ledger.verdict is not None:
        faults.append("it is being saved and ended already; when that is done it can be resumed")
    needed = spec.experiment.checkpoint_grace + TEARDOWN
    least = spend.so_far + max(0, spend.per_second * round(needed.total_seconds()) - spend.prepaid)
    if caps.max_cost is not None and caps.max_cost <= least:
        cost = f"it has cost {format_usd(spend.so_far)}, and {format_usd(least)} when it is saved"
        faults.append(f"max_cost: {format_usd(caps.max_cost)} is too little: {cost}")
    lasted = age(spec, ledger, now)
    if caps.max_duration is not None and caps.max_duration <= lasted + needed:
        time = f"it {_has_lasted(ledger, lasted)}, and {format_duration(lasted + needed)} when it is saved"
        faults.append(f"max_duration: {format_duration(caps.max_duration)} is too little: {time}")
    return faults


def resume_faults(spec: RunSpec, spend: Spend, caps: Caps) -> list[str]:
    """Return why a run that has ended cannot go on under `caps`, or its own where none are given."""
    faults = []
    cap = caps.max_cost or spec.experiment.max_cost_micro
    least = spend.so_far + min(cost_of_least(spec, offer) for offer in spec.offers)
    if cap is not None and cap <= least:
        begun = f"once {counted(spec.num_nodes, 'node')} began"
        cost = f"it has cost {format_usd(spend.so_far)}, and {format_usd(least)} {begun}"
        faults.append(f"max_cost: {format_usd(cap)} is too little: {cost}; give --max-cost")
    grace = spec.experiment.checkpoint_grace
    if caps.max_duration is not None and caps.max_duration <= grace:
        faults.append(
            f"max_duration: {format_duration(caps.max_duration)} is too little: it has {format_duration(grace)} to save"
        )
    return faults


def deadline(spec: RunSpec, ledger: LedgerState, facts: Facts) -> datetime:
    """Return until when nodes may live without a scheduler: no cap is passed at the prices in force.

    The price of an instance-hour does not change once it has begun; for those to come a quarter more is allowed for.
    """
    now = facts.server_time
    latest = now - age(spec, ledger, now) + spec.experiment.max_duration + TEARDOWN_ALLOWANCE
    cap, rate = spec.experiment.max_cost_micro, facts.cost_per_second
    if cap is None or not rate:
        return latest
    left = max(0, cap - facts.cost_so_far + facts.cost_prepaid) / rate
    begun = [(now - item.launch_time) % HOUR for item in facts.instances if item.alive]
    known = min((HOUR - part).total_seconds() for part in begun) if begun else 0.0
    seconds = left if left <= known else known + (left - known) / PRICE_HEADROOM
    return min(latest, max(now, now + timedelta(seconds=seconds) - TERMINATION))


def rearm(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> tuple[Action, ...]:
    """Return the new timer of nodes whose own is not about right, nothing where all are."""
    now = facts.server_time
    wanted = max(deadline(spec, ledger, facts), now + SHORTEST_TIMER)
    near = max(ARMED_WELL, ARMED_WELL_SHARE * (wanted - now)).total_seconds()
    soon = (now + spec.experiment.checkpoint_grace + SOON).timestamp()
    good = (wanted - now).seconds % 60 in GOOD_MOMENT

    def is_wrong(armed: float) -> bool:
        early = wanted.timestamp() - armed
        return early < -near or (early > near and (good or (armed < soon and early > 60)))

    wrong = tuple(
        instance_id
        for instance_id, beacon in gang.latest.items()
        if beacon.deadline is not None
        and is_wrong(beacon.deadline)
        and beacon.stage not in ENDED
        and instance_id not in facts.arming
        and (item := gang.instances.get(instance_id)) is not None
        and item.usable
    )
    return (Arm(wrong, ledger.generation, wanted),) if wrong else ()


def is_due(gang: Gang) -> bool:
    """Tell whether a node's own timer had it save and stop."""
    return any(beacon.due for beacon in gang.latest.values())


def timed_out(ledger: LedgerState, gang: Gang, facts: Facts) -> Verdict | None:
    """Return the verdict of a gang that ends by its nodes' own timers, None while one of them may still save."""
    usable = {item.instance_id for item in facts.instances if item.usable}
    saving = [i for i, b in gang.latest.items() if i in usable and not (b.stage in ENDED and b.synced)]
    if saving:
        return None
    kind: Literal["capped", "stopped"] = "capped"
    why = "the nodes' own timers were due"
    if ledger.stop is not None:
        kind = "capped" if ledger.stop.detail.get("cap") else "stopped"
        why = str(ledger.stop.detail.get("reason", why))
    newest = gang.checkpoint_step
    saved = "no checkpoint was saved" if newest is None else f"last checkpoint: step {newest}"
    return Verdict(kind, f"{why}: {saved}", RAISE)


def warnings(spec: RunSpec, ledger: LedgerState, cost: MicroUSD, now: datetime) -> tuple[Near, ...]:
    """Return of each cap the highest of `WARNED_AT` percent that was passed, nothing of one that is not near."""
    cap, limit, lasted = spec.experiment.max_cost_micro, spec.experiment.max_duration, age(spec, ledger, now)
    began = round((now - lasted).timestamp())
    used = [("max_duration", lasted / limit, _has_lasted(ledger, lasted), format_duration(limit), began)]
    if cap is not None:
        used.insert(0, ("max_cost", cost / cap, f"has cost {format_usd(cost)}", format_usd(cap), cap))
    found = []
    for name, share, what, whole, once in used:
        percent = next((mark for mark in WARNED_AT if share * 100 >= mark), None)
        if percent is not None:
            found.append(Near(f"{name}-{whole}-{once}-{percent}", f"{what}, {percent}% of {name} {whole}"))
    return tuple(found)
