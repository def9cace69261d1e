"""How long a run lasted: one figure for `orch status`, views, news and reports. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from orchestrator.core.facts import Instance
from orchestrator.core.ledger import LedgerState


def ended_at(ledger: LedgerState, instances: Iterable[Instance]) -> datetime | None:
    """Return when a run ended: when its last machine did, as EC2 tells it; None while its generation is not closed.

    One that had no machine since it was launched or resumed ended when it was closed.
    """
    mine = (item for item in instances if item.generation >= ledger.first_generation)
    ends = [item.end_time for item in mine if item.end_time is not None]
    return max(ends, default=ledger.closed_at) if ledger.closed else None


def lasted(started: datetime, ended: datetime | None, now: datetime) -> timedelta:
    """Return how long a run has lasted: from its launch until it ended, or until now; pauses before a resume count."""
    return (now if ended is None else ended) - started
