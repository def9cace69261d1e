"""Which members of a gang are lost or about to be, and what that would mean if nothing could be done about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from orchestrator.core.beacon import Beacon
from orchestrator.core.facts import EC2_INTERRUPTED, SHUT_ITSELF_DOWN, Facts, Instance
from orchestrator.core.gang import Gang
from orchestrator.core.ledger import Launch, LedgerState, Verdict
from orchestrator.core.preflight import REACH_LIMIT, read_preflight
from orchestrator.core.units import format_duration, parse_time

# EC2 may not show a new instance for a while (eventual consistency); until then absence is not death.
INVISIBLE_GRACE = timedelta(minutes=2)
BOOT_LIMIT = timedelta(minutes=15)
FIRST_BEACON_LIMIT = timedelta(minutes=20)
# Who has not booted so long after most of its launch had keeps them waiting, and they are billed.
LAGGARD_LIMIT = timedelta(minutes=5)
# Whoever is silent for so long is lost, whatever SSH says.
SILENCE_LIMIT = timedelta(minutes=2)
# Agents speak every 3 s at least. Who is silent for longer than this is asked by SSH. A machine that answers and has
# neither agent nor training is lost (it rebooted). So is one that does not answer while the others are heard, once the
# training has found its pace: machines that boot or load answer slowly.
SUSPECT_AFTER = timedelta(seconds=4.5)
CONDEMNED_AFTER = timedelta(seconds=8)
SETTLED_IN = timedelta(seconds=90)
# Who had booted when it was taken into the gang is heard soon after the training before has ended.
JOIN_LIMIT = timedelta(minutes=5)
# Agents speak as soon as they are started. Who is told to start and not heard for so long is asked by SSH; while most
# others are heard it is lost after that long without an answer, or if nothing lives there, else at JOIN_LIMIT.
UNHEARD_AFTER = timedelta(seconds=30)
UNHEARD_LIMIT = timedelta(seconds=90)
# A node whose agent has been late lately, since the machine is busy, is given as much longer, up to this.
LATE_AT_MOST = timedelta(seconds=4)
LAST_LINES = 20

ENDED: frozenset[str] = frozenset({"exited", "lost"})
RESUME = "`orch resume` goes on from the last checkpoint"


@dataclass(frozen=True, slots=True)
class Lost:
    """One lost member. `verdict` is how the run ends where it cannot be replaced.

    `interrupted`: EC2 takes it or took it (`noticed`: it is still there). `ended`: somebody ended it on purpose, which
    is obeyed. `unfit`: it never came to work, or must not begin; a gang that is so as a whole is not tried elsewhere.
    `lost`: everything else. `hasty`: it fell silent seconds ago, and nothing more is known: enough to replace it, but
    no run ends by it, since EC2 may yet say that it took the node. `found` is why it is unfit, where all others wait.
    """

    kind: Literal["interrupted", "lost", "unfit", "ended"]
    verdict: Verdict
    noticed: bool = False
    hasty: bool = False
    found: str = ""


def find_lost(ledger: LedgerState, gang: Gang, facts: Facts) -> dict[str, Lost]:
    """Return the lost members of the current generation by instance id: those that are gone, silent, under notice."""
    silent, launched, speechless = _silent(gang, facts), ledger.launched, _speechless(gang, facts)
    unchecked = _unfit_by_preflight(gang, facts)
    found: dict[str, Lost] = {}
    for instance_id in gang.ranks:
        if not _is_done(gang, instance_id):
            lost = (
                _gone(ledger, gang, facts, instance_id)
                or _unfit(launched, gang, facts, instance_id)
                or unchecked.get(instance_id)
                or _never_joined(ledger, gang, facts, instance_id)
                or speechless.get(instance_id)
                or silent.get(instance_id)
                or _noticed(gang, instance_id)
            )
            if lost is not None:
                found[instance_id] = lost
    return dict(sorted(found.items(), key=lambda item: (item[1].noticed, item[1].hasty)))


def silence(beacon: Beacon, facts: Facts) -> timedelta:
    """Return how long a node has not been heard of, as far as somebody listened."""
    return facts.waited_since(parse_time(beacon.time))


def suspects(gang: Gang, facts: Facts) -> tuple[str, ...]:
    """Return the members that have not been heard of for longer than they should."""
    return tuple(
        instance_id
        for instance_id, beacon in gang.latest.items()
        if silence(beacon, facts) > SUSPECT_AFTER
        and not _is_done(gang, instance_id)
        and (item := gang.instances.get(instance_id)) is not None
        and item.usable
    )


def unheard(gang: Gang, facts: Facts) -> Mapping[str, timedelta]:
    """Return the members that were told to start and have not spoken for longer than they should, and for how long."""
    waited = {i: facts.waited_since(asked) for i, asked in facts.asked.items() if i not in gang.beacons}
    return {
        i: age
        for i, age in waited.items()
        if age > UNHEARD_AFTER and i in gang.ranks and (item := gang.instances.get(i)) is not None and item.usable
    }


def _is_done(gang: Gang, instance_id: str) -> bool:
    """Tell whether a member did all its work and saved it: nothing is lost with it any more."""
    beacon = gang.beacons.get(instance_id)
    return beacon is not None and beacon.stage == "exited" and beacon.exit_code == 0 and beacon.synced


def _gone(ledger: LedgerState, gang: Gang, facts: Facts, instance_id: str) -> Lost | None:
    instance = gang.instances.get(instance_id)
    if instance is None:
        beacon = gang.latest.get(instance_id)
        if beacon is not None and silence(beacon, facts) <= CONDEMNED_AFTER:
            return None  # it speaks, so it is EC2's listing that lags
        born = max((item.time for item in ledger.launches if instance_id in item.instance_ids), default=None)
        if born is not None and facts.server_time - born <= INVISIBLE_GRACE:
            return None
        return Lost("lost", Verdict("failed", f"EC2 no longer knows {instance_id}", "launch again"))
    return None if instance.usable else _ended(gang, instance)


def _ended(gang: Gang, instance: Instance) -> Lost:
    rank = gang.ranks.get(instance.instance_id)
    who = f"node {rank} ({instance.instance_id}, {instance.zone})"
    if instance.end_reason in EC2_INTERRUPTED:
        message = f"EC2 took {who} back: {instance.end_reason}"
        hint = "`orch resume` launches the gang again from the last checkpoint"
        return Lost("interrupted", Verdict("interrupted", message, hint, str(instance.end_reason), rank))
    reasons = {
        SHUT_ITSELF_DOWN: "it shut itself down (its own timer, or a shutdown on the node)",
        "Client.UserInitiatedShutdown": "somebody terminated it through the API",
    }
    why = reasons.get(instance.end_reason or "", instance.end_reason or "EC2 gives no reason")
    kind: Literal["ended", "lost"] = "ended" if instance.end_reason == "Client.UserInitiatedShutdown" else "lost"
    return Lost(kind, Verdict("failed", f"{who} is gone: {why}", RESUME, rank=rank))


def _unfit(launched: Launch | None, gang: Gang, facts: Facts, instance_id: str) -> Lost | None:
    if launched is None or instance_id not in launched.instance_ids:
        return None
    rank, node, age = gang.ranks[instance_id], facts.nodes.get(instance_id), facts.server_time - launched.time
    who = f"node {rank} ({instance_id})"
    booted = node is not None and bool(node.host_keys)
    if node is not None and node.boot_failure is not None:
        lines = tuple(node.boot_failure.strip().splitlines()[-LAST_LINES:])
        verdict = Verdict("failed", f"{who} did not boot", "see its last lines", "", rank, lines)
    elif not booted and age > BOOT_LIMIT:
        limit = format_duration(BOOT_LIMIT)
        verdict = Verdict("failed", f"{who} was not ready within {limit}", "check image and network", "", rank)
    elif not booted and _left_behind(launched, facts):
        why = f"was not ready {format_duration(LAGGARD_LIMIT)} after most of those launched with it"
        return _missed(gang, instance_id, why, "check image and network")
    elif instance_id not in gang.latest and facts.waited_since(launched.time) > FIRST_BEACON_LIMIT:
        verdict = Verdict("failed", f"{who} never reported", "see `orch ssh`", "", rank)
    else:
        return None
    return Lost("unfit", verdict)


def _missed(gang: Gang, instance_id: str, why: str, hint: str) -> Lost:
    """Return the loss of a member that never came to work.

    It is told as one found unfit while nobody has begun to train, as while a preflight waits for all: then there is
    nothing of the training in S3.
    """
    rank = gang.ranks[instance_id]
    verdict = Verdict("failed", f"node {rank} ({instance_id}) {why}", hint, "", rank)
    waited_for = all(beacon.started is None for beacon in gang.beacons.values())
    return Lost("unfit", verdict, found=f"it {why}" if waited_for else "")


def _left_behind(launched: Launch, facts: Facts) -> bool:
    """Tell whether most of those that were launched together booted long ago.

    A type may take its time to boot: only others of the same launch say how long is long.
    """
    ready = sorted(facts.asked[i] for i in launched.instance_ids if i in facts.asked)
    most = len(launched.instance_ids) // 2
    return len(ready) > most and facts.waited_since(ready[most]) > LAGGARD_LIMIT


def _unfit_by_preflight(gang: Gang, facts: Facts) -> Mapping[str, Lost]:
    """Return the members that the checks before the training found unfit; all others wait for what becomes of that."""
    if all(beacon.preflight is None for beacon in gang.beacons.values()):
        return {}
    said = {i: read_preflight(beacon.preflight) for i, beacon in gang.beacons.items()}
    why = _cut_off(gang, facts)
    for found in said.values():
        why |= found.unfit if found is not None else {}
    return {
        instance_id: Lost(
            "unfit",
            Verdict(
                "failed",
                f"node {rank} ({instance_id}) is unfit to train: {why[rank]}",
                "`orch doctor RUN` shows what was found",
                "",
                rank,
            ),
            found=why[rank],
        )
        for instance_id, rank in gang.ranks.items()
        if rank in why
    }


def _cut_off(gang: Gang, facts: Facts) -> dict[int, str]:
    """Return the ranks that have begun with the checks for long and do not reach rank 0; itself, if most do not."""
    waiting = {
        beacon.rank: facts.waited_since(datetime.fromtimestamp(mark.time, UTC))
        for beacon in gang.beacons.values()
        if beacon.stage == "preflight"
        for mark in beacon.times
        if (mark.generation, mark.stage) == (beacon.generation, "preflight")
    }
    first = next((beacon for beacon in gang.beacons.values() if beacon.rank == 0), None)
    found = read_preflight(first.preflight) if first is not None else None
    if found is None or found.seconds is not None or waiting.get(0, timedelta()) <= REACH_LIMIT:
        return {}
    cut = [rank for rank in found.missing if waiting.get(rank, timedelta()) > REACH_LIMIT]
    others = len(waiting) - 1
    if others > 1 and 2 * len(cut) > others:
        return {0: f"{len(cut)} of {others} nodes do not reach it"}
    return dict.fromkeys(cut, "it does not reach node 0")


def _never_joined(ledger: LedgerState, gang: Gang, facts: Facts, instance_id: str) -> Lost | None:
    """Return a spare that was taken into the gang and is not heard: nobody but its agent can tell whether it lives."""
    recovery = ledger.recovery
    if recovery is None or recovery.time is None or instance_id in gang.latest or instance_id not in ledger.kept:
        return None
    if facts.waited_since(recovery.time) <= JOIN_LIMIT:
        return None
    rank = gang.ranks[instance_id]
    return Lost("lost", Verdict("failed", f"node {rank} ({instance_id}) never joined", "see `orch ssh`", "", rank))


def _speechless(gang: Gang, facts: Facts) -> Mapping[str, Lost]:
    """Return the members that were told to start and never spoke, while most others do: the trouble is theirs."""
    waited, found = unheard(gang, facts), {}
    if 2 * len(waited) > gang.size:
        return {}
    for instance_id, age in waited.items():
        nobody = instance_id in facts.unanswered or instance_id in facts.deserted
        if age <= (UNHEARD_LIMIT if nobody else JOIN_LIMIT):
            continue
        why = "has not been heard since it was told to start"
        why += ", nor does it answer SSH" if instance_id in facts.unanswered else ""
        found[instance_id] = _missed(gang, instance_id, why, "see `orch ssh`")
    return found


def _silent(gang: Gang, facts: Facts) -> Mapping[str, Lost]:
    """Return the members that fell silent for good.

    A machine that says itself that nothing lives there is lost at once. Otherwise, when more than half of a gang is not
    heard at once, the trouble is more likely between us and them, and they are given the whole of the limit.
    """
    doubted = suspects(gang, facts)
    if not doubted:
        return {}
    hurry = 2 * len(doubted) <= max(2, gang.size) and has_pace(gang, facts)
    found = {}
    for instance_id in doubted:
        beacon = gang.latest[instance_id]
        quiet, late = silence(beacon, facts), min(timedelta(seconds=beacon.late), LATE_AT_MOST)
        unanswered = instance_id in facts.unanswered and quiet > CONDEMNED_AFTER + late and hurry
        deserted = instance_id in facts.deserted
        if not deserted and not unanswered and quiet <= SILENCE_LIMIT:
            continue
        rank = gang.ranks[instance_id]
        how = "and does not answer SSH" if unanswered else f"for {format_duration(SILENCE_LIMIT)}"
        how = "and has neither agent nor training any more" if deserted else how
        message = f"node {rank} ({instance_id}) fell silent {how}"
        if (notice := gang.latest[instance_id].notice) is not None:
            message = f"{message}; EC2 takes it back at {notice}"
            found[instance_id] = Lost("interrupted", Verdict("interrupted", message, RESUME, "", rank))
        else:
            hasty = not deserted and quiet <= SILENCE_LIMIT
            found[instance_id] = Lost("lost", Verdict("failed", message, RESUME, "", rank), hasty=hasty)
    return found


def has_pace(gang: Gang, facts: Facts) -> bool:
    """Tell whether the training makes steps, or has run for so long that it would if it said so."""
    first = next((b for b in gang.beacons.values() if b.rank == 0 and b.started is not None), None)
    if first is None or first.started is None:
        return False
    return first.progress is not None or facts.server_time.timestamp() - first.started > SETTLED_IN.total_seconds()


def _noticed(gang: Gang, instance_id: str) -> Lost | None:
    beacon = gang.latest.get(instance_id)
    if beacon is None or beacon.notice is None:
        return None
    rank = gang.ranks[instance_id]
    message = f"EC2 takes node {rank} ({instance_id}) back at {beacon.notice}"
    return Lost("interrupted", Verdict("interrupted", message, RESUME, "", rank), noticed=True)
