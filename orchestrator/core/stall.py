"""When a training of which nothing comes any more is taken for one that hangs: ranks wait for one that is stuck. Pure.

By the clocks of the nodes alone: how long they have written nothing is their own word, and no outage makes it longer.
"""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.beacon import Beacon
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.health import suspects
from orchestrator.core.ledger import LedgerState, Verdict
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import format_duration, parse_time

# Without `stall_timeout`: no rank has written anything, to its output, progress or a checkpoint, for so long at least,
# and for so many times as long as the training ever paused between two progress lines.
QUIET_AT_LEAST = timedelta(minutes=5)
PAUSES = 5

_HINT = "`orch logs` shows who said nothing any more"


def find_stall(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> Verdict | None:
    """Return the verdict of a gang whose ranks wait for one another, None while it goes on or that cannot be told."""
    first = next((b for b in gang.beacons.values() if b.rank == 0 and b.stage == "running"), None)
    if first is None:
        return None
    limit = spec.experiment.stall_timeout
    if limit is not None:
        return _without_steps(limit, first)
    tried = sum(item.kind == "failed" for item in ledger.recoveries)
    return _without_words(first, 2**tried, gang, facts)


def _without_steps(limit: timedelta, first: Beacon) -> Verdict | None:
    last = (first.progress or {}).get("time")
    if not isinstance(last, int | float) or parse_time(first.time).timestamp() - last <= limit.total_seconds():
        return None
    message = f"no step for {format_duration(limit)}: a rank hangs, and the others wait for it"
    return Verdict("failed", message, _HINT, "stalled", None, first.tail)


def _without_words(first: Beacon, patience: int, gang: Gang, facts: Facts) -> Verdict | None:
    """Judge by the pace that the training has shown, where the experiment does not say how long is too long.

    Whoever writes anything may be evaluating or saving, and one that is done or silent is another matter. `patience`
    grows with each start after a failure: what was a long evaluation the first time is not taken for a hang again.
    """
    if first.pause is None or len(gang.beacons) < gang.size or suspects(gang, facts):
        return None
    if any(b.stage != "running" for b in gang.beacons.values()):
        return None
    quiet = min(b.quiet for b in gang.beacons.values())
    if quiet <= patience * max(QUIET_AT_LEAST.total_seconds(), PAUSES * first.pause):
        return None
    pause = "less than a second" if first.pause < 1 else format_duration(first.pause)
    message = (
        f"no rank wrote anything for {format_duration(quiet)}, and no pause before was longer than {pause}: one hangs"
    )
    hint = f"{_HINT}; where so long a pause is right, set stall_timeout to more"
    return Verdict("failed", message, hint, "stalled", None, first.tail)
