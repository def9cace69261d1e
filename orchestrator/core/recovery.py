"""What is done about a loss or a failure: who stays, what is launched, when it is not worth it. Pure.

The survivors stay while they are at least half of the gang (of `min_nodes`, where it may vary in size); then only what
is lost is launched, where they are. Else, or when there is no room beside them, the whole gang moves: another zone,
another type, by the plan's order of offers. Survivors that are enough by themselves do not wait for what is launched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from orchestrator.core import caps
from orchestrator.core.actions import Action, Kill, Probe, Stop, Terminate
from orchestrator.core.beacon import Beacon
from orchestrator.core.deadline import beside
from orchestrator.core.elastic import find_growth, living_spares, ready_spares, with_spares
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.health import ENDED, SUSPECT_AFTER, Lost, find_lost, silence, suspects, unheard
from orchestrator.core.launching import launch_failed
from orchestrator.core.ledger import LedgerState, Recovery, Verdict, meaning_of
from orchestrator.core.spec import RunSpec
from orchestrator.core.trouble import DISK_FULL
from orchestrator.core.units import counted
from orchestrator.core.verdict import find_ending, find_failure
from orchestrator.core.worth import boot_time, hopeless

# After the training was made to end its nodes get so long to put logs and checkpoints into S3.
SYNC_ALLOWANCE = timedelta(seconds=20)
# An instance that EC2 announced to take and did not take is not kept for longer than this.
OVERDUE = timedelta(minutes=5)


def judge(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> Recovery | Verdict | None:
    """Return how this generation ends: with a recovery, or for good (the first verdict holds); None while it goes on.

    A loss comes before a failure: ranks that crash because a peer went away are no error of the user.
    """
    if ledger.verdict is not None:
        return ledger.verdict
    if ledger.recovery is not None and _came_to_its_end(ledger.recovery, facts):
        return Verdict("finished", f"all {counted(ledger.recovery.size, 'node')} finished")
    lost = find_lost(ledger, gang, facts)
    if ledger.stop is not None and not ledger.manned:
        return _stopped_while_unmanned(ledger, facts)
    if lost:
        due = caps.is_due(gang)
        recovery = _recover_from(spec, ledger, gang, facts, lost)
        answer = _after_their_timers(ledger, gang, facts, recovery) if due else recovery
        # Of those that are only announced the training may still save itself, or come to its end; of those that fell
        # silent just now EC2 may not have said yet why.
        if due or isinstance(answer, Recovery) or not all(item.noticed or item.hasty for item in lost.values()):
            return answer
    if not ledger.manned:
        return ledger.refused or launch_failed(spec, ledger, facts)
    return _judge_training(spec, ledger, gang, facts)


def _judge_training(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> Recovery | Verdict | None:
    """Return how the generation of a gang that has lost nobody ends, None while it trains."""
    if ledger.stop is not None and _saves_to_grow(spec, ledger, facts):
        return None
    ending = find_ending(spec, ledger, gang, facts)
    if ending is not None and caps.is_due(gang) and ledger.stop is None and ending.kind == "capped":
        # Where the caps leave room for more the machines are let go by themselves, and others take over.
        return ending if hopeless(spec, ledger, gang, facts, boot_time(ledger, gang)) else None
    failure = find_failure(spec, ledger, gang, facts) if ending is None else None
    if failure is not None:
        return _try_again(spec, ledger, gang, facts, failure)
    return ending or find_growth(spec, ledger, gang, facts)


def _after_their_timers(
    ledger: LedgerState, gang: Gang, facts: Facts, otherwise: Recovery | Verdict
) -> Recovery | Verdict | None:
    """Return how a gang goes on that its own timers ended: once all is saved, where the caps leave room for more."""
    ended = caps.timed_out(ledger, gang, facts)
    return otherwise if ended is not None and isinstance(otherwise, Recovery) else ended


def _saves_to_grow(spec: RunSpec, ledger: LedgerState, facts: Facts) -> bool:
    """Tell whether the training is just saving itself to go on with more nodes: a wish to stop waits for that."""
    recovery = ledger.recovery
    return recovery is not None and recovery.kind == "grown" and not settle(spec, ledger, facts).done


def _came_to_its_end(recovery: Recovery, facts: Facts) -> bool:
    """Tell whether the training that was to save itself was done before it heard of that: no other need begin."""
    nodes = (facts.nodes.get(i) for i in {*recovery.kept, *recovery.going})
    said = [node.beacon for node in nodes if node is not None and node.beacon is not None]
    done = [b for b in said if b.generation == recovery.generation and b.exit_code == 0 and b.synced]
    return len(done) == recovery.size and all(b.stopped_step is None for b in done)


def _stopped_while_unmanned(ledger: LedgerState, facts: Facts) -> Verdict:
    kind, why = meaning_of(ledger.stop) if ledger.stop is not None else ("stopped", "")
    if ledger.recovery is None and kind == "capped":
        return Verdict(kind, f"{why}: nothing was launched", "raise the limit")
    if ledger.resumed and ledger.recovery is None:
        return Verdict(kind, "stopped before anything was launched again", "`orch resume` goes on from its checkpoints")
    if ledger.recovery is None:
        return Verdict(kind, "stopped before anything was launched")
    steps = [b.checkpoint_step for n in facts.nodes.values() if (b := n.beacon) and b.checkpoint_step is not None]
    newest = f"last checkpoint: step {max(steps)}" if steps else "no checkpoint was saved"
    return Verdict(kind, f"{why}: while lost nodes were being replaced, {newest}", "`orch resume` goes on from there")


def _recover_from(
    spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts, lost: Mapping[str, Lost]
) -> Recovery | Verdict:
    first = next(iter(lost.values()))
    by_purpose = next((item for item in lost.values() if item.kind == "ended"), None)
    if by_purpose is not None or ledger.stop is not None:
        return (by_purpose or first).verdict
    survivors = _usable(gang, without=lost)
    # What was launched as a whole since spares were may leave no room for all of them.
    joining = ready_spares(ledger, facts)[: spec.num_nodes - len(survivors)]
    there = with_spares(survivors, joining, spec.num_nodes)
    boot = timedelta() if len(there) >= spec.min_nodes else boot_time(ledger, gang)
    useless = hopeless(spec, ledger, gang, facts, boot)
    if useless:
        return _with_reason(first.verdict, useless)
    enough = 2 * len(there) >= spec.min_nodes
    missing = 0 if len(there) >= spec.min_nodes else spec.num_nodes - len(there)
    if not enough and all(item.kind == "unfit" for item in lost.values()):
        return first.verdict
    noticed = {instance_id for instance_id, item in lost.items() if item.noticed}
    before = ledger.recovery.going if ledger.recovery is not None else ()
    going = {*noticed, *(() if enough else there), *(i for i in before if i not in gang.ranks)}
    interrupted = any(item.kind == "interrupted" for item in lost.values())
    return Recovery(
        generation=ledger.generation,
        kind="interrupted" if interrupted else "lost",
        cause="; ".join(item.verdict.message for item in lost.values()),
        kept=there if enough else {},
        going=tuple(sorted(going)),
        missing=missing if enough else spec.num_nodes,
        offer=ledger.offer or 0,
        graceful=len(noticed) == len(lost) and _saves_itself(ledger, gang),
        trained=gang.training,
        size=gang.size,
        asks=beside(spec, ledger, facts, ledger.offer or 0) if enough and missing else (),
        time=facts.server_time,
        unfit={instance_id: item.found for instance_id, item in lost.items() if item.found},
    )


def _saves_itself(ledger: LedgerState, gang: Gang) -> bool:
    """Tell whether there is a training that can, or one of the generation before that already does."""
    before = ledger.recovery
    return gang.training or (before is not None and before.graceful and not gang.beacons)


def _try_again(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts, verdict: Verdict) -> Recovery | Verdict:
    """Return another start on the same nodes after a failure of the user's code, while there is reason to hope."""
    if verdict.code == DISK_FULL:
        return _with_reason(verdict, "the same machines would have no more room")
    tried = sum(item.kind == "failed" for item in ledger.recoveries)
    if tried >= spec.experiment.retries:
        return _with_reason(verdict, f"tried again {counted(tried, 'time')} already" if tried else "")
    if not _made_steps(ledger, gang):
        return _with_reason(verdict, "no step was made since the last start" if tried else "")
    useless = hopeless(spec, ledger, gang, facts, timedelta())
    survivors = _usable(gang, without={})
    if useless or len(survivors) < gang.size:
        return _with_reason(verdict, useless)
    return Recovery(
        generation=ledger.generation,
        kind="failed",
        cause=verdict.message,
        kept=survivors,
        going=(),
        missing=0,
        offer=ledger.offer or 0,
        graceful=False,
        trained=gang.training,
        size=gang.size,
        time=facts.server_time,
    )


def _made_steps(ledger: LedgerState, gang: Gang) -> bool:
    steps = [b.progress.get("step") for b in gang.beacons.values() if b.progress is not None]
    return any(isinstance(step, int) and step > (ledger.restore_step or 0) for step in steps)


def _usable(gang: Gang, without: Mapping[str, object]) -> dict[str, int]:
    """Return the ranks of those who stay; one that EC2 does not show yet is not lost, and costs money as they do."""
    return {
        instance_id: rank
        for instance_id, rank in gang.ranks.items()
        if instance_id not in without and ((item := gang.instances.get(instance_id)) is None or item.usable)
    }


def _with_reason(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, message=f"{verdict.message}; {reason}") if reason else verdict


@dataclass(frozen=True, slots=True)
class Settling:
    """The end of the training of the generation before: what to do for it, and whether the next may begin."""

    actions: tuple[Action, ...] = ()
    done: bool = True


def settle(spec: RunSpec, ledger: LedgerState, facts: Facts) -> Settling:
    """Return what ends the old training on those who stay or are going.

    One that saves itself gets `checkpoint_grace` for it, unless a rank of it is gone: then no other can save any more.
    """
    recovery = ledger.recovery
    if recovery is None or recovery.time is None:
        return Settling()
    usable = {item.instance_id for item in facts.instances if item.usable}
    old = {
        i: beacon
        for i in (*recovery.kept, *recovery.going)
        if (node := facts.nodes.get(i)) is not None
        and (beacon := node.beacon) is not None
        and beacon.generation <= recovery.generation
    }
    pending = {i: beacon for i, beacon in old.items() if i in usable and not (beacon.stage in ENDED and beacon.synced)}
    age, grace = facts.server_time - recovery.time, spec.experiment.checkpoint_grace
    if not pending:
        return Settling()
    broken = any(i not in usable and beacon.stage not in ENDED for i, beacon in old.items())
    if recovery.graceful and not broken and age <= grace:
        return Settling(_ask_to_save(recovery, old, facts), done=False)
    busy = {i: b for i, b in pending.items() if b.stage not in ENDED}
    if age > grace + SYNC_ALLOWANCE:
        # Nobody may have been there to end it in time. Where it begins again is settled only once it makes no more
        # steps, which would be lost: a kill that is under way may never arrive. Who is silent or goes is not waited
        # for.
        busy = {i: b for i, b in busy.items() if i in recovery.kept and silence(b, facts) <= SUSPECT_AFTER}
        if not busy:
            return Settling()
    alive = {i: b.generation for i, b in busy.items() if (i, b.generation) not in facts.killed}
    kills = tuple(
        Kill(tuple(i for i, of in alive.items() if of == generation), generation)
        for generation in sorted({*alive.values()})
    )
    return Settling(kills, done=False)


def _ask_to_save(recovery: Recovery, old: Mapping[str, Beacon], facts: Facts) -> tuple[Action, ...]:
    """Return the stop of a training that is to grow; at a notice nobody need ask, the node itself does."""
    if recovery.kind != "grown" or recovery.generation in facts.stops_sent:
        return ()
    first = next((i for i, b in old.items() if b.rank == 0 and b.generation == recovery.generation), None)
    return () if first is None or old[first].stage in ENDED else (Stop(first, recovery.generation),)


def release(ledger: LedgerState, gang: Gang, facts: Facts, settled: bool) -> tuple[Action, ...]:
    """Return the end of machines that are no members any more.

    Those of a gang that moves are needed until they have saved. Those that EC2 announced to take are left to EC2, which
    does not charge for what it takes within the first hour, but not for ever.
    """
    recovery = ledger.recovery
    if recovery is None or recovery.time is None:
        return ()
    needed = {*recovery.kept, *recovery.going}
    spares = set(living_spares(ledger, facts))
    overdue = facts.server_time - recovery.time > OVERDUE
    strays = []
    for item in facts.instances:
        if not item.usable or item.instance_id in gang.ranks or item.instance_id in spares:
            continue
        node = facts.nodes.get(item.instance_id)
        noticed = node is not None and node.beacon is not None and node.beacon.notice is not None
        if item.instance_id not in needed or (settled and (overdue or not noticed)):
            strays.append(item.instance_id)
    return (Terminate(tuple(sorted(strays)), "replaced"),) if strays else ()


def probe(gang: Gang, facts: Facts) -> tuple[Action, ...]:
    """Return the question to nodes that fell silent, or never spoke, whether agent or training live there."""
    quiet = dict.fromkeys((*suspects(gang, facts), *unheard(gang, facts)))
    asked = tuple(i for i in quiet if i not in facts.answering)
    return (Probe(asked),) if asked else ()
