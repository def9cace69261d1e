"""What a run waits for, in words: room in EC2, nodes that boot to join it. Pure; for people, decides nothing."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.elastic import living_spares, next_try, ready_spares
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.launching import next_round
from orchestrator.core.ledger import LedgerState
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import counted
from orchestrator.core.worth import boot_time


def outlook(spec: RunSpec, ledger: LedgerState, facts: Facts) -> str:
    """Return what a run waits for that is not on its way, or trains without, "" where there is nothing to say."""
    if ledger.verdict is not None or ledger.stop is not None:
        return ""
    if not ledger.manned:
        again = next_round(spec, ledger, facts)
        what = f"waiting for capacity for {spec.experiment.how_many('node')}"
        return "" if again is None else f"{what}, {_next_try(again)}"
    gang = Gang.of(ledger, facts)
    lacking = spec.num_nodes - gang.size
    if lacking <= 0:
        return ""
    goes_on = f"goes on with {gang.size} of {counted(spec.num_nodes, 'node')}"
    living, ready = living_spares(ledger, facts), ready_spares(ledger, facts)
    if not living:
        again = next_try(ledger, boot_time(ledger, gang))
        return f"{goes_on}, waiting for capacity" + ("" if again is None else f", {_next_try(again)}")
    booting = len(living) - len(ready)
    return f"{goes_on}, {f'{booting} boot' if booting else f'{len(ready)} will join'}"


def _next_try(again: datetime) -> str:
    return f"next try at {again:%H:%M:%S}"
