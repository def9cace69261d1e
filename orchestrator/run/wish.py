"""What users ask of a run: written into its ledger, so that whichever scheduler is or will be there obeys."""

from __future__ import annotations

from orchestrator.aws.s3 import Bucket
from orchestrator.core.caps import Caps
from orchestrator.core.ledger import LedgerState
from orchestrator.errors import BadInput
from orchestrator.run.ledger import Ledger
from orchestrator.run.renewal import Renewed


def ask_stop(bucket: Bucket, run_id: str, actor: str, reason: str = "stopped by the user") -> LedgerState:
    """Ask for a checkpoint and the end of the run; asking twice, or of an ended run, changes nothing."""
    ledger = Ledger(bucket, run_id, actor)
    state = ledger.read()
    if state.stop is None and not state.closed and state.verdict is None:
        ledger.append("wish", "stop", {"reason": reason}, epoch=0, now=bucket.server_time())
    return ledger.state


def ask_extend(bucket: Bucket, run_id: str, actor: str, caps: Caps) -> LedgerState:
    """Ask that a run goes by other caps; of one that has ended this changes nothing."""
    ledger = Ledger(bucket, run_id, actor)
    if not ledger.read().closed:
        ledger.append("wish", "extend", caps.to_json(), epoch=0, now=bucket.server_time())
    return ledger.state


def ask_resume(
    bucket: Bucket, run_id: str, actor: str, caps: Caps | None = None, renewed: Renewed | None = None
) -> LedgerState:
    """Ask for another generation of a run that has ended, under `caps` and with what was `renewed`; one that has not
    simply goes on.

    Raises BadInput when the run finished: there is nothing to resume.
    """
    ledger = Ledger(bucket, run_id, actor)
    state = ledger.read()
    if state.verdict is not None and state.closed:
        if state.verdict.kind == "finished":
            raise BadInput(f"{run_id} has finished; there is nothing to resume", "`orch launch` begins a new run")
        detail = {} if caps is None else dict(caps.to_json())
        detail |= {} if renewed is None else renewed.to_json()
        ledger.append("wish", "resume", detail, epoch=0, now=bucket.server_time())
    return ledger.state
