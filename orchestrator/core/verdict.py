"""Whether a generation has come to its end, and how: from the ledger and the facts alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from orchestrator.core.beacon import Beacon
from orchestrator.core.facts import EC2_INTERRUPTED, Facts, Instance
from orchestrator.core.gang import Gang
from orchestrator.core.ledger import Launch, LedgerState, Verdict, VerdictKind
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import format_duration, parse_time

# EC2 may not show a new instance for a while (eventual consistency); until then absence is not death.
INVISIBLE_GRACE = timedelta(minutes=2)
BOOT_LIMIT = timedelta(minutes=15)
FIRST_BEACON_LIMIT = timedelta(minutes=20)
SILENCE_LIMIT = timedelta(minutes=2)
# When one rank fails the others follow within seconds; waiting for them names the first one.
FAILURE_SETTLES = timedelta(seconds=8)
# A node that is taken away takes its peers' training with it before EC2 shows it as going. Until it is known whether a
# node that went quiet (beacons come every 5 s) is gone, its peers' exit codes say nothing.
QUIET = timedelta(seconds=8)
LOSS_SHOWS = timedelta(seconds=60)
RETRIED_OFFERS = frozenset({"no-capacity", "not-offered", "quota", "price-cap"})


def find_verdict(spec: RunSpec, ledger: LedgerState, facts: Facts) -> Verdict | None:
    """Return the verdict once there is one; the first one recorded holds for good."""
    if ledger.verdict is not None:
        return ledger.verdict
    launched = ledger.launched
    if launched is None:
        if (stop := ledger.stop) is not None and stop.detail.get("cap"):
            return Verdict("capped", f"{stop.detail.get('reason')}: nothing was launched", "raise the limit")
        if stop is not None:
            return Verdict("stopped", "stopped before anything was launched")
        return ledger.refused or _launch_failed(spec, ledger)
    gang = Gang.of(launched, facts)
    return (
        _lost_instance(gang, facts, launched)
        or _mistrusted(gang, facts)
        or _boot_failed(gang, facts, launched)
        or _all_done(gang)
        or (_failed(gang, facts) if ledger.stop is None else None)
        or _stopped(spec, ledger, gang, facts)
        or _silent(gang, facts, launched)
    )


def next_offer(spec: RunSpec, ledger: LedgerState) -> int | None:
    """Return the index of the next offer to try, or None when every one was refused."""
    tried = {launch.offer for launch in ledger.current}
    no_quota = {
        (spec.offers[launch.offer].quota_code, spec.offers[launch.offer].lifecycle)
        for launch in ledger.current
        if launch.status == "quota"
    }
    for index, offer in enumerate(spec.offers):
        if index not in tried and (offer.quota_code, offer.lifecycle) not in no_quota:
            return index
    return None


def _launch_failed(spec: RunSpec, ledger: LedgerState) -> Verdict | None:
    for launch in ledger.current:
        if launch.status is not None and launch.status not in RETRIED_OFFERS:
            offer = spec.offers[launch.offer]
            return Verdict(
                "failed",
                f"EC2 refused {spec.num_nodes} x {offer.instance_type} in {offer.zone}: "
                f"{launch.code}: {launch.message}",
                "mend what the message names, then launch again; nothing was started",
                launch.code,
            )
    if not ledger.current or any(launch.status is None for launch in ledger.current):
        return None
    if next_offer(spec, ledger) is not None:
        return None
    return _nothing_to_be_had(spec, ledger.current)


def _nothing_to_be_had(spec: RunSpec, tried: Iterable[Launch]) -> Verdict:
    parts = [
        f"{spec.offers[item.offer].instance_type} {spec.offers[item.offer].lifecycle} {spec.offers[item.offer].zone}: "
        f"{item.code or item.status}"
        for item in tried
    ]
    quota = [item for item in tried if item.status == "quota"]
    hint = "try later, or name further types under resources.any_of, or --spot-policy auto"
    if quota:
        hint = f"ask AWS to raise quota {spec.offers[quota[0].offer].quota_code} (Service Quotas, EC2); " + hint
    return Verdict(
        "no-capacity", f"no room for {spec.num_nodes} nodes anywhere asked: {'; '.join(parts)}", hint, "no-capacity"
    )


def _lost_instance(gang: Gang, facts: Facts, launched: Launch) -> Verdict | None:
    for instance_id in launched.instance_ids:
        instance = gang.instances.get(instance_id)
        if instance is None:
            if facts.server_time - launched.time > INVISIBLE_GRACE:
                return Verdict("failed", f"EC2 no longer knows {instance_id}", "launch again", rank=None)
        elif not instance.usable:
            return _ended(gang, instance)
    return None


def _ended(gang: Gang, instance: Instance) -> Verdict:
    rank = gang.ranks.get(instance.instance_id)
    who = f"node {rank} ({instance.instance_id}, {instance.zone})"
    if instance.end_reason in EC2_INTERRUPTED:
        return Verdict(
            "interrupted",
            f"EC2 took {who} back: {instance.end_reason}",
            "`orch resume` launches the gang again from the last checkpoint",
            str(instance.end_reason),
            rank,
        )
    reasons = {
        "Client.InstanceInitiatedShutdown": "it shut itself down (its own timer, or a shutdown on the node)",
        "Client.UserInitiatedShutdown": "somebody terminated it through the API",
    }
    why = reasons.get(instance.end_reason or "", instance.end_reason or "EC2 gives no reason")
    return Verdict("failed", f"{who} is gone: {why}", "`orch resume` goes on from the last checkpoint", rank=rank)


def _mistrusted(gang: Gang, facts: Facts) -> Verdict | None:
    for instance_id in sorted(facts.mistrusted & gang.ranks.keys()):
        rank = gang.ranks[instance_id]
        return Verdict(
            "failed",
            f"node {rank} ({instance_id}) answers with another host key than it published; nothing was sent to it",
            "somebody may stand in between: look at the network before you launch again",
            "HostKeyMismatch",
            rank,
        )
    return None


def _boot_failed(gang: Gang, facts: Facts, launched: Launch) -> Verdict | None:
    for instance_id, rank in gang.ranks.items():
        node = facts.nodes.get(instance_id)
        if node is not None and node.boot_failure is not None:
            lines = tuple(node.boot_failure.strip().splitlines()[-20:])
            return Verdict("failed", f"node {rank} ({instance_id}) did not boot", "see its last lines", "", rank, lines)
        if (node is None or not node.host_keys) and facts.server_time - launched.time > BOOT_LIMIT:
            limit = format_duration(BOOT_LIMIT)
            return Verdict(
                "failed",
                f"node {rank} ({instance_id}) was not ready within {limit}",
                "check image and network",
                "",
                rank,
            )
    return None


def _all_done(gang: Gang) -> Verdict | None:
    beacons = gang.beacons
    if len(beacons) == gang.size and all(b.stage == "exited" and b.exit_code == 0 for b in beacons.values()):
        return Verdict("finished", f"all {gang.size} nodes finished")
    return None


def _failed(gang: Gang, facts: Facts) -> Verdict | None:
    broken = [b for b in gang.beacons.values() if b.stage == "lost" or (b.stage == "exited" and b.exit_code != 0)]
    if not broken or any(b.stopped_step is not None for b in gang.beacons.values()):
        return None
    first = min(broken, key=lambda b: (_exit_time(b), b.rank))
    pending = [b for b in gang.beacons.values() if b.stage not in {"exited", "lost"}]
    quiet = any(facts.server_time - parse_time(b.time) > QUIET for b in pending)
    settles = LOSS_SHOWS if quiet else FAILURE_SETTLES
    if (pending or len(gang.beacons) < gang.size) and facts.waited_since(_exit_time(first)) < settles:
        return None
    what = (
        "the training vanished without an exit code (killed?)"
        if first.stage == "lost"
        else f"{first.exit_stage or 'run'} exited with code {first.exit_code}"
    )
    return Verdict(
        "failed",
        f"node {first.rank} ({first.instance_id}): {what}",
        f"`orch logs --node {first.rank}` has everything it said",
        "",
        first.rank,
        first.tail,
    )


def _exit_time(beacon: Beacon) -> datetime:
    return parse_time(beacon.exit_time or beacon.time)


def _stopped(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> Verdict | None:
    stop = ledger.stop
    steps = [b.stopped_step for b in gang.beacons.values() if b.stopped_step is not None]
    all_exited = len(gang.beacons) == gang.size and all(b.stage in {"exited", "lost"} for b in gang.beacons.values())
    if stop is None:
        if steps and all_exited and gang.synced:
            return Verdict("stopped", f"the training stopped by itself, {_saved(gang, steps)}", "`orch resume` goes on")
        return None
    kind: VerdictKind = "capped" if stop.detail.get("cap") else "stopped"
    why = str(stop.detail.get("reason", "asked to stop"))
    hint = "`orch resume` goes on from there"
    if not gang.training:
        return Verdict(kind, f"{why}: stopped before training began", "`orch resume` starts it")
    if all_exited and (gang.synced or facts.server_time - stop.time > 2 * spec.experiment.checkpoint_grace):
        return Verdict(kind, f"{why}: {_saved(gang, steps)}", hint)
    # Nobody may have passed a user's wish on until now; a cap is not to be passed, whoever was away.
    waited = facts.server_time - stop.time if kind == "capped" else facts.waited_since(stop.time)
    if waited > spec.experiment.checkpoint_grace and not all_exited:
        limit = format_duration(spec.experiment.checkpoint_grace)
        newest = gang.checkpoint_step
        last = "no checkpoint" if newest is None else f"last checkpoint: step {newest}"
        return Verdict(kind, f"{why}: the training did not exit within {limit}, {last}", hint)
    return None


def _saved(gang: Gang, steps: list[int]) -> str:
    newest = gang.checkpoint_step
    if steps and newest is not None and newest >= max(steps):
        return f"saved at step {newest}"
    return "no checkpoint was saved" if newest is None else f"last checkpoint: step {newest}"


def _silent(gang: Gang, facts: Facts, launched: Launch) -> Verdict | None:
    for instance_id, rank in gang.ranks.items():
        beacon = gang.beacons.get(instance_id)
        if beacon is None:
            if facts.waited_since(launched.time) > FIRST_BEACON_LIMIT:
                return Verdict("failed", f"node {rank} ({instance_id}) never reported", "see `orch ssh`", "", rank)
        elif facts.waited_since(parse_time(beacon.time)) > SILENCE_LIMIT:
            limit = format_duration(SILENCE_LIMIT)
            return Verdict("failed", f"node {rank} ({instance_id}) fell silent for {limit}", "`orch resume`", "", rank)
    return None
