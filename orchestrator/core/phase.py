"""Where a run is, in one word, derived from ledger and facts; never stored. Pure."""

from __future__ import annotations

from typing import Literal

from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.ledger import LedgerState

Phase = Literal[
    "launching", "booting", "starting", "running", "recovering", "stopping", "saving", "terminating",
    "finished", "stopped", "failed", "interrupted", "no-capacity", "capped",
]  # fmt: skip
ENDED: frozenset[str] = frozenset({"finished", "stopped", "failed", "interrupted", "no-capacity", "capped"})


def find_phase(ledger: LedgerState, facts: Facts) -> Phase:
    """Return the phase; a run has ended only when nothing of it was observed any more (law 6)."""
    verdict = ledger.verdict
    if ledger.closed and verdict is not None:
        return verdict.kind
    if verdict is not None:
        return "saving" if any(item.usable for item in facts.instances) else "terminating"
    gang = Gang.of(ledger, facts)
    if ledger.recovery is not None and not (ledger.manned and gang.training):
        return "recovering" if ledger.stop is None else "stopping"
    if not ledger.manned:
        return "launching"
    if ledger.stop is not None:
        return "stopping"
    return _progress(gang, facts)


def _progress(gang: Gang, facts: Facts) -> Phase:
    if len(gang.beacons) < gang.size:
        ready = all((n := facts.nodes.get(i)) is not None and n.host_keys for i in gang.ranks)
        return "starting" if ready else "booting"
    return "running" if gang.training else "starting"
