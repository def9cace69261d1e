"""How a whole gang's training comes to its end, from the ledger and the facts alone. Pure.

Losses of nodes are `core.health`'s; whether an end is answered with another start is `core.recovery`'s.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from orchestrator.core import caps
from orchestrator.core.beacon import STAGING_FAILED, Beacon
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.health import ENDED, RESUME, SUSPECT_AFTER, silence
from orchestrator.core.ledger import LedgerState, Verdict, meaning_of
from orchestrator.core.spec import RunSpec
from orchestrator.core.stall import find_stall
from orchestrator.core.trouble import explain
from orchestrator.core.units import counted, format_duration, parse_time

# When one rank fails the others follow within seconds; waiting for them names the first one.
FAILURE_SETTLES = timedelta(seconds=8)
# Who was heard so long after that, still training, is not one of them.
HEARD_AFTER = timedelta(seconds=2)
# Processes that end because one ended do so within so long of it, and may well be gone before it is.
AT_ONCE = timedelta(seconds=3)
# The last words of a rank whose peer went away: sockets, gloo, NCCL and the store of torch.distributed.
_OF_A_PEER = re.compile(
    "peer went away|(closed|reset) by peer|Connection(Reset|Aborted|Refused)Error|Broken ?pipe|recv, got 0 bytes"
    "|ncclRemoteError|remote process exit|communicator was aborted|Watchdog caught collective",
    re.IGNORECASE,
)


# What it was that exited, by the stage it did so in.
_ENDS = {
    "starting": "the start of the training", "preflight": "the preflight", "staging": "the staging of its data",
    "setup": "`setup`",
}  # fmt: skip


def find_ending(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> Verdict | None:
    """Return the verdict of a gang that is done, was stopped, or must not be spoken to; None while it trains."""
    return _mistrusted(gang, facts) or _all_done(gang) or _stopped(spec, ledger, gang, facts)


def find_failure(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> Verdict | None:
    """Return the verdict of a training that failed by itself: a rank ended with an error, or none makes steps."""
    if ledger.stop is not None:
        return None
    return _failed(spec, gang, facts) or find_stall(spec, ledger, gang, facts)


def _failed(spec: RunSpec, gang: Gang, facts: Facts) -> Verdict | None:
    """Return the verdict of a gang of which a rank ended with an error, naming the one that failed first.

    A rank that was not asked to stop and fails while another node is silent is not judged: it may be what the others
    say of a peer that went away.
    """
    broken = [b for b in gang.beacons.values() if b.stage == "lost" or (b.stage == "exited" and b.exit_code != 0)]
    if not broken or any(b.stopped_step is not None for b in gang.beacons.values()):
        return None
    first = _first_of(broken)
    pending = [b for b in gang.beacons.values() if b.stage not in ENDED]
    if not _settled(first, pending, gang, facts) or any(silence(b, facts) > SUSPECT_AFTER for b in pending):
        return None
    what = (
        "the training vanished without an exit code (killed?)"
        if first.stage == "lost"
        else f"{_what_exited(spec, first)} exited with code {first.exit_code}"
    )
    why, advice, code = explain(first)
    why = why or (_unstaged(first) if first.exit_stage == "staging" else "")
    return Verdict(
        "failed",
        f"node {first.rank} ({first.instance_id}): {what}" + (f": {why}" if why else ""),
        (f"{advice}; " if advice else "") + f"`orch logs {spec.run_id} --node {first.rank}` has everything it said",
        code,
        first.rank,
        first.tail,
    )


def _what_exited(spec: RunSpec, first: Beacon) -> str:
    """Return what it was, of a recipe's steps and checks the one that was under way."""
    step = (first.progress or {}).get("name") if spec.recipe else None
    return _ENDS.get(first.exit_stage or "", f"step {step}" if step else "`run`")


def _unstaged(beacon: Beacon) -> str:
    """Return why data or a checkpoint could not be brought, as the node said it; "" when it said nothing."""
    said = (line.partition(STAGING_FAILED)[2] for line in reversed(beacon.tail) if line.startswith("orch: "))
    return next(filter(None, said), "")


def _settled(first: Beacon, pending: list[Beacon], gang: Gang, facts: Facts) -> bool:
    """Tell whether no other rank will turn out to have failed before `first`.

    Whoever was heard for a while after it, and trains, did not; but one that blames a peer may still be waited for.
    """
    complete, ended = len(gang.beacons) == gang.size, _exit_time(first)
    if complete and not pending:
        return True
    heard = min((parse_time(b.time) - ended for b in pending), default=timedelta())
    waited = facts.waited_since(ended)
    if complete and not _blames_a_peer(first) and min(heard, waited) >= HEARD_AFTER:
        return True
    return waited >= FAILURE_SETTLES


def _blames_a_peer(beacon: Beacon) -> bool:
    return any(map(_OF_A_PEER.search, beacon.tail))


def _first_of(broken: list[Beacon]) -> Beacon:
    """Return the node whose failure is the others' cause: the first, but of those at once one on which something ran
    out, else one that blames no peer."""
    earliest = min(map(_exit_time, broken))
    at_once = [b for b in broken if _exit_time(b) - earliest <= AT_ONCE]
    return min(at_once, key=lambda b: (b.trouble is None, _blames_a_peer(b), _exit_time(b), b.rank))


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


def _all_done(gang: Gang) -> Verdict | None:
    beacons = gang.beacons
    if len(beacons) == gang.size and all(b.stage == "exited" and b.exit_code == 0 for b in beacons.values()):
        return Verdict("finished", f"all {counted(gang.size, 'node')} finished")
    return None


def _exit_time(beacon: Beacon) -> datetime:
    return parse_time(beacon.exit_time or beacon.time)


def _stopped(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> Verdict | None:
    stop = ledger.stop
    steps = [b.stopped_step for b in gang.beacons.values() if b.stopped_step is not None]
    all_exited = len(gang.beacons) == gang.size and all(b.stage in ENDED for b in gang.beacons.values())
    if stop is None:
        if steps and all_exited and gang.synced:
            return _stopped_by_itself(gang, steps)
        return None
    kind, why = meaning_of(stop)
    hint = "`orch resume` goes on from there" if kind == "stopped" else caps.RAISE
    if not gang.training:
        return Verdict(
            kind,
            f"{why}: stopped before training began",
            "`orch resume` starts it" if kind == "stopped" else caps.RAISE,
        )
    grace = spec.experiment.checkpoint_grace
    patience = min(2 * grace, grace + caps.SETTLING) if kind == "capped" else 2 * grace
    if all_exited and (gang.synced or facts.server_time - stop.time > patience):
        return Verdict(kind, f"{why}: {_saved(gang, steps)}", hint)
    # Nobody may have passed a user's wish on until now; a cap is not to be passed, whoever was away.
    waited = facts.server_time - stop.time if kind == "capped" else facts.waited_since(stop.time)
    if waited > grace and not all_exited:
        limit = format_duration(grace)
        newest = gang.checkpoint_step
        last = "no checkpoint" if newest is None else f"last checkpoint: step {newest}"
        return Verdict(kind, f"{why}: the training did not exit within {limit}, {last}", hint)
    return None


def _stopped_by_itself(gang: Gang, steps: list[int]) -> Verdict:
    if caps.is_due(gang):
        return Verdict("capped", f"the nodes' own timers were due: {_saved(gang, steps)}", caps.RAISE)
    taken = next((b for b in gang.latest.values() if b.notice is not None), None)
    if taken is None:
        return Verdict("stopped", f"the training stopped by itself, {_saved(gang, steps)}", "`orch resume` goes on")
    message = f"EC2 takes node {taken.rank} ({taken.instance_id}) back at {taken.notice}: {_saved(gang, steps)}"
    return Verdict("interrupted", message, RESUME, "", taken.rank)


def _saved(gang: Gang, steps: list[int]) -> str:
    newest = gang.checkpoint_step
    if steps and newest is not None and newest >= max(steps):
        return f"saved at step {newest}"
    return "no checkpoint was saved" if newest is None else f"last checkpoint: step {newest}"
