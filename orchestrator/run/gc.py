"""Finding and removing what runs left behind: the cloud is listed first, by tag; memory plays no part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.facts import Resource
from orchestrator.errors import OrchError
from orchestrator.run.lease import Lease, Owner
from orchestrator.run.ledger import Ledger

DEADLINE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something tagged with a run that nobody looks after, and why it is thought so."""

    kind: str
    id: str
    run: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def find_orphans(session: Session, bucket: Bucket) -> list[Orphan]:
    """Return what belongs to runs that have ended, have no scheduler, or are unknown to the bucket."""
    compute = Compute(session)
    found = [(item.tagged_run, "instance", item.instance_id) for item in compute.tagged_instances() if item.alive]
    found += [(item.run, item.kind, item.id) for item in compute.resources(None)]
    reasons: dict[str, str | None] = {}
    orphans = []
    for run, kind, identifier in found:
        if run not in reasons:
            reasons[run] = _why_orphaned(bucket, run)
        why = reasons[run]
        if why is not None:
            orphans.append(Orphan(kind, identifier, run, why))
    return orphans


def _why_orphaned(bucket: Bucket, run: str) -> str | None:
    """Return why what carries this run's tag is an orphan; None while a scheduler looks after the run."""
    try:
        state = Ledger(bucket, run, "gc").read()
        held = Lease(bucket, run, Owner.me()).read()
    except OrchError as error:
        return f"its run cannot be read ({error.message})"
    if state.closed:
        return "its run has ended"
    if held is None:
        return "no scheduler was ever there"
    if held.expires < bucket.server_time() or held.owner.surely_dead():
        return "its scheduler is gone (`orch resume` continues the run instead)"
    return None


def remove(session: Session, orphans: Sequence[Orphan], on_progress: Callable[[str], None]) -> list[Orphan]:
    """Remove orphans, instances first, and return those still there after the deadline."""
    compute = Compute(session)
    instances = [item.id for item in orphans if item.kind == "instance"]
    if instances:
        compute.terminate(instances)
        on_progress(f"terminating {len(instances)} instances")
    left = list(orphans)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while left and time.monotonic() < deadline:
        alive = {item.instance_id for item in compute.tagged_instances() if item.alive}
        still = [item for item in left if item.kind == "instance" and item.id in alive]
        others = [item for item in left if item.kind != "instance"]
        left = still + (others if still else [item for item in others if not _delete(compute, item, on_progress)])
        if left:
            time.sleep(1.0)
    return left


def _delete(compute: Compute, item: Orphan, on_progress: Callable[[str], None]) -> bool:
    gone = compute.delete(Resource(item.kind, item.id, item.run))  # type: ignore[arg-type]
    if gone:
        on_progress(f"deleted {item.kind} {item.id}")
    return gone
