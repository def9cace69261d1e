"""What a run waits for, in words: room in EC2, nodes that boot to join it. Pure; for people, decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.elastic import living_spares, next_try, ready_spares
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.launching import next_round
from orchestrator.core.ledger import LedgerState
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import format_duration


@dataclass(frozen=True, slots=True)
class Outlook:
    """`text` says what is waited for, `again` when EC2 is asked the next time, where that is known."""

    text: str
    again: datetime | None = None

    def at(self, now: datetime) -> str:
        """Return it as one line for somebody who reads it now."""
        if self.again is None:
            return self.text
        left = self.again - now
        return f"{self.text}, next try {f'in {format_duration(left)}' if left.total_seconds() >= 1 else 'now'}"


def look_ahead(spec: RunSpec, ledger: LedgerState, facts: Facts) -> Outlook | None:
    """Return what the run waits for, None when it waits for nothing that is not on its way."""
    if ledger.verdict is not None or ledger.stop is not None:
        return None
    if not ledger.manned:
        again = next_round(spec, ledger, facts)
        return None if again is None else Outlook(f"waiting for capacity for {spec.experiment.nodes} nodes", again)
    gang = Gang.of(ledger, facts)
    lacking = spec.num_nodes - gang.size
    if lacking <= 0:
        return None
    goes_on = f"goes on with {gang.size} of {spec.num_nodes} nodes"
    living, ready = living_spares(ledger, facts), ready_spares(ledger, facts)
    if not living:
        return Outlook(f"{goes_on}, waiting for capacity for {lacking}", next_try(ledger))
    booting = len(living) - len(ready)
    joins = f"{booting} more boot{'s' if booting == 1 else ''}" if booting else f"{len(ready)} more will join"
    return Outlook(f"{goes_on}, {joins}")
