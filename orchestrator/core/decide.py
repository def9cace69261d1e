"""What to do next: desired state and observed state in, actions out. Pure, level-triggered, idempotent.

Called on every tick with everything that was observed. It keeps nothing: a scheduler that died anywhere is replaced
by another that calls this with the same facts. Deciding twice on equal facts gives equal actions.
"""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core import caps
from orchestrator.core.actions import (
    Action,
    Close,
    Create,
    Delete,
    End,
    Kill,
    Launch,
    Record,
    Recover,
    Start,
    Stop,
    Terminate,
    Wish,
)
from orchestrator.core.elastic import reinforce
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.health import ENDED, INVISIBLE_GRACE
from orchestrator.core.launching import must_wait, next_launch
from orchestrator.core.ledger import LedgerState, Recovery, Verdict
from orchestrator.core.recovery import judge, probe, release, settle
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import format_usd

# After the verdict nodes get this long to put logs and checkpoints into S3 before they are terminated.
DRAIN = {"finished": timedelta(minutes=5), "stopped": timedelta(minutes=5), "capped": caps.DRAIN}
DRAIN_AFTER_FAILURE = timedelta(seconds=90)


def decide(spec: RunSpec, ledger: LedgerState, facts: Facts) -> tuple[Action, ...]:
    """Return what to do now; nothing means wait."""
    if ledger.closed:
        return ()
    spec = caps.in_force(spec, ledger)
    unresolved = next((item for item in ledger.launches if item.status is None), None)
    if unresolved is not None:
        where = (unresolved.generation, unresolved.attempt, unresolved.offer, unresolved.request)
        return (Launch(*where, unresolved.count, unresolved.least, unresolved.spare),)
    recording = tuple(
        Record(item)
        for item in facts.instances
        if not item.usable and facts.recorded.get(item.instance_id) != item.state
    )
    gang = Gang.of(ledger, facts)
    judged = judge(spec, ledger, gang, facts)
    match judged:
        case None:
            return recording + _go_on(spec, ledger, gang, facts)
        case Recovery():
            return (*recording, Recover(judged))
        case Verdict():
            return recording + (_wind_up(ledger, facts, judged) if ledger.verdict is not None else (End(judged),))


def _go_on(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> tuple[Action, ...]:
    old = settle(spec, ledger, facts)
    first = (*old.actions, *release(ledger, gang, facts, old.done), *probe(gang, facts))
    if ledger.stop is None:
        cap = caps.cap_reached(spec, ledger, facts) or _too_dear(spec, ledger, facts)
        if cap is not None:
            return (Wish("stop", f"{cap} is near"),)
        first += caps.rearm(spec, ledger, gang, facts)
    if not ledger.manned:
        return first + _launch(spec, ledger, facts)
    if ledger.stop is not None:
        return first + _ask_to_stop(gang, facts, ledger.generation)
    first += reinforce(spec, ledger, gang, facts)
    return first + (_start(gang, facts, ledger.generation) if old.done else ())


def _launch(spec: RunSpec, ledger: LedgerState, facts: Facts) -> tuple[Action, ...]:
    missing = _missing_resources(spec, facts)
    if missing:
        return missing
    launch = next_launch(spec, ledger, facts)
    return () if launch is None or (ledger.recovery and must_wait(spec, launch, facts)) else (launch,)


def _too_dear(spec: RunSpec, ledger: LedgerState, facts: Facts) -> str | None:
    """Return the cap that a launch would pass whatever comes of it: such machines are not launched."""
    launch = None if ledger.manned else next_launch(spec, ledger, facts)
    cap = spec.experiment.max_cost_micro
    if launch is None or cap is None:
        return None
    share = (launch.least or launch.count or spec.num_nodes) / spec.num_nodes
    least = round(share * caps.cost_of_least(spec, spec.offers[launch.offer]))
    return f"max_cost of {format_usd(cap)}" if facts.cost_so_far + least >= cap else None


def _missing_resources(spec: RunSpec, facts: Facts) -> tuple[Action, ...]:
    have = {item.kind for item in facts.resources}
    wanted: list[Create] = [Create("key-pair"), Create("security-group")]
    if any(offer.placement_group for offer in spec.offers):
        wanted.append(Create("placement-group"))
    return tuple(item for item in wanted if item.kind not in have)


def _start(gang: Gang, facts: Facts, generation: int) -> tuple[Action, ...]:
    if not gang.visible:
        return ()
    ready = tuple(
        instance_id
        for instance_id in gang.ranks
        if instance_id not in gang.beacons
        and instance_id not in facts.started
        and (node := facts.nodes.get(instance_id)) is not None
        and node.host_keys
    )
    return (Start(ready, gang.ranks, generation),) if ready else ()


def _ask_to_stop(gang: Gang, facts: Facts, generation: int) -> tuple[Action, ...]:
    first = next(i for i, rank in gang.ranks.items() if rank == 0)
    beacon = gang.beacons.get(first)
    begun = beacon is not None and beacon.stage not in ENDED and gang.training
    return (Stop(first, generation),) if begun and generation not in facts.stops_sent else ()


def _wind_up(ledger: LedgerState, facts: Facts, verdict: Verdict) -> tuple[Action, ...]:
    visible = {item.instance_id for item in facts.instances}
    alive = {item.instance_id for item in facts.instances if item.alive}
    recent = facts.server_time - (ledger.verdict_time or facts.server_time) <= INVISIBLE_GRACE
    unseen = {i for launch in ledger.launches for i in launch.instance_ids if i not in visible and recent}
    unseen -= facts.recorded.keys()
    if alive or unseen:
        waiting = _drain(ledger, facts, verdict)
        if waiting is not None:
            return waiting
        going = tuple(sorted({item.instance_id for item in facts.instances if item.usable} | unseen))
        return (Terminate(going, verdict.kind),) if going else ()
    if facts.resources:
        return tuple(Delete(item) for item in facts.resources if item.kind not in {"volume", "network-interface"}) or ()
    unrecorded = [item for item in facts.instances if facts.recorded.get(item.instance_id) != item.state]
    return () if unrecorded else (Close(verdict),)


def _drain(ledger: LedgerState, facts: Facts, verdict: Verdict) -> tuple[Action, ...] | None:
    """Return what to do while nodes still upload, or None once they may go.

    Nodes may be on different generations: a verdict may come while one is being given up for the next.
    """
    if ledger.verdict_time is None:
        return None
    if facts.server_time - ledger.verdict_time > DRAIN.get(verdict.kind, DRAIN_AFTER_FAILURE):
        return None
    usable = [item.instance_id for item in facts.instances if item.usable and item.instance_id not in facts.mistrusted]
    latest = {i: b for i in usable if (node := facts.nodes.get(i)) is not None and (b := node.beacon) is not None}
    begun = [i for i in usable if i in latest or i in facts.started]
    current = ledger.generation
    on = {i: latest[i].generation if i in latest and i not in facts.started else current for i in begun}
    busy = [
        i
        for i in begun
        if (i, on[i]) not in facts.killed
        and (i not in latest or latest[i].generation < on[i] or latest[i].stage not in ENDED)
    ]
    if busy:
        return tuple(Kill(tuple(i for i in busy if on[i] == g), g) for g in sorted({on[i] for i in busy}))
    pending = [i for i in begun if i not in latest or latest[i].generation < on[i] or not latest[i].synced]
    return () if pending else None
