"""What to do next: desired state and observed state in, actions out. Pure, level-triggered, idempotent.

Called on every tick with everything that was observed. It keeps nothing: a scheduler that died anywhere is replaced
by another that calls this with the same facts. Deciding twice on equal facts gives equal actions.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.core.actions import (
    Action,
    Close,
    Create,
    Delete,
    End,
    Kill,
    Launch,
    Record,
    Start,
    Stop,
    Terminate,
    Wish,
)
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.ledger import LedgerState, Verdict
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import format_duration, format_usd
from orchestrator.core.verdict import INVISIBLE_GRACE, find_verdict, next_offer

# After the verdict nodes get this long to put logs and checkpoints into S3 before they are terminated.
DRAIN = {"finished": timedelta(minutes=5), "stopped": timedelta(minutes=5), "capped": timedelta(minutes=3)}
DRAIN_AFTER_FAILURE = timedelta(seconds=90)


def decide(spec: RunSpec, ledger: LedgerState, facts: Facts) -> tuple[Action, ...]:
    """Return what to do now; nothing means wait."""
    if ledger.closed:
        return ()
    unresolved = next((item for item in ledger.current if item.status is None), None)
    if unresolved is not None:
        return (Launch(unresolved.generation, unresolved.attempt, unresolved.offer, unresolved.request),)
    recording = tuple(
        Record(item)
        for item in facts.instances
        if not item.usable and facts.recorded.get(item.instance_id) != item.state
    )
    verdict = find_verdict(spec, ledger, facts)
    if verdict is None:
        return recording + _go_on(spec, ledger, facts)
    if ledger.verdict is None:
        return (*recording, End(verdict))
    return recording + _wind_up(ledger, facts, verdict)


def _go_on(spec: RunSpec, ledger: LedgerState, facts: Facts) -> tuple[Action, ...]:
    launched = ledger.launched
    if launched is None:
        return _launch(spec, ledger, facts)
    gang = Gang.of(launched, facts)
    if ledger.stop is None:
        cap = _cap_reached(spec, ledger, facts)
        if cap is not None:
            return (Wish("stop", cap),)
        return _start(gang, facts, ledger.generation)
    return _ask_to_stop(gang, facts, ledger.generation)


def _launch(spec: RunSpec, ledger: LedgerState, facts: Facts) -> tuple[Action, ...]:
    offer = next_offer(spec, ledger)
    if offer is None:
        return ()
    # What is launched costs at once: a gang that would be stopped at its first step is not launched at all.
    per_second = -(-spec.offers[offer].price * spec.num_nodes // 3600)
    cap = _cap_reached(spec, ledger, replace(facts, cost_per_second=per_second))
    if cap is not None:
        return (Wish("stop", cap),)
    return _missing_resources(spec, facts) or (Launch(ledger.generation, len(ledger.current) + 1, offer),)


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
    begun = beacon is not None and beacon.stage not in {"exited", "lost"} and gang.training
    return (Stop(first, generation),) if begun and not facts.stop_sent else ()


def _cap_reached(spec: RunSpec, ledger: LedgerState, facts: Facts) -> str | None:
    """Return why the run must stop now, while there is still time to save: before a cap is passed, not after."""
    grace = spec.experiment.checkpoint_grace
    began = ledger.generation_began or spec.created
    if facts.server_time - began + grace >= spec.experiment.max_duration:
        return f"max_duration of {format_duration(spec.experiment.max_duration)} is near"
    cap = spec.experiment.max_cost_micro
    ahead = facts.cost_per_second * round((grace + timedelta(minutes=1)).total_seconds())
    if cap is not None and facts.cost_so_far + ahead >= cap:
        return f"max_cost of {format_usd(cap)} is near"
    return None


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
    """Return what to do while nodes still upload, or None once they may go."""
    launched = ledger.launched
    if launched is None or ledger.verdict_time is None:
        return None
    gang = Gang.of(launched, facts)
    if facts.server_time - ledger.verdict_time > DRAIN.get(verdict.kind, DRAIN_AFTER_FAILURE):
        return None
    usable = {i for i, item in gang.instances.items() if item.usable and i not in facts.mistrusted}
    begun = usable & (set(gang.beacons) | facts.started)
    busy = tuple(
        i
        for i in gang.ranks
        if i in begun
        and i not in facts.killed
        and (i not in gang.beacons or gang.beacons[i].stage not in {"exited", "lost"})
    )
    if busy:
        return (Kill(busy, ledger.generation),)
    pending = [i for i in begun if i not in gang.beacons or not gang.beacons[i].synced]
    return () if pending else None
