"""Whether another start of the training is worth its money: what is left of time, money and hope. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.core import caps
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.ledger import LedgerState
from orchestrator.core.spec import RunSpec
from orchestrator.core.uniform import BOOT_ALLOWANCE

# Recoveries in a row after which training did not begin again: whatever is wrong, one more does not mend it.
FRUITLESS = 5


def hopeless(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts, boot: timedelta) -> str:
    """Return why a start that is `boot` away is not worth its money, "" when it is."""
    fruitless = 0
    for item in (*(r.trained for r in ledger.recoveries), gang.training):
        fruitless = 0 if item else fruitless + 1
    if fruitless > FRUITLESS:
        return f"training did not begin again after {FRUITLESS} recoveries"
    # What was lost costs nothing any more, what is to be started will.
    planned = -(-spec.offers[ledger.offer or 0].price * spec.min_nodes // 3600)
    ahead = replace(facts, cost_per_second=max(facts.cost_per_second, planned))
    cap = caps.cap_reached(spec, ledger, ahead, boot + spec.experiment.checkpoint_grace)
    return "" if cap is None else f"too little is left of {cap} to replace it"


def time_left(spec: RunSpec, ledger: LedgerState, facts: Facts) -> timedelta:
    """Return what is left of `max_duration`."""
    return spec.experiment.max_duration - caps.age(spec, ledger, facts.server_time)


def boot_time(ledger: LedgerState, gang: Gang) -> timedelta:
    """Return how long it will take until training goes on: as long as it took last time, where that is known."""
    first = next((b for b in gang.beacons.values() if b.rank == 0), None)
    if ledger.launched is None or first is None or first.started is None:
        return BOOT_ALLOWANCE
    return max(timedelta(), datetime.fromtimestamp(first.started, UTC) - ledger.launched.time)
