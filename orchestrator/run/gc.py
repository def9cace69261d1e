"""Finding and removing what runs left behind: the cloud is listed first, by tag; memory plays no part.

May not remove what it was not asked to, what has lost the tag since, or what somebody looks after by now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.facts import Resource, ResourceKind
from orchestrator.core.units import counted
from orchestrator.errors import NoPermission, NotFound, OrchError, Unreachable
from orchestrator.run import datasets
from orchestrator.run.lease import Lease, Owner
from orchestrator.run.ledger import Ledger
from orchestrator.run.spec import load_spec

DEADLINE_SECONDS = 300.0
UNFINISHED = "a build that was not finished (`orch dataset build` completes it instead)"
PARTS = "parts of a data set that were not put together (`orch dataset build --nodes` goes on with them instead)"
# What is removed first: requests, so that no machine comes after those that go, then machines, then what they held. An
# image goes before the snapshots it is made of, interfaces and volumes before the groups and keys of their machines.
ORDER = (
    "spot-request",
    "instance",
    "image",
    "snapshot",
    "volume",
    "network-interface",
    "placement-group",
    "security-group",
    "key-pair",
    "dataset",
    "parts",
)


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something tagged with a run that nobody looks after, and why it is thought so.

    Of kind `dataset` it is a build that was not finished, and of no run; a data set itself is never one. Of kind
    `parts` it is what the nodes of a run packed.
    """

    kind: str
    id: str
    run: str
    why: str
    region: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def find_orphans(session: Session, bucket: Bucket) -> list[Orphan]:
    """Return what belongs to runs of one region that have ended, have no scheduler, or are unknown; as `ORDER` has it.

    Raises NoPermission or Unreachable where EC2 or the runs cannot be read: then nothing is known to be an orphan.
    """
    compute = Compute(session)
    found = [(item.tagged_run, "instance", item.instance_id) for item in compute.tagged_instances() if item.alive]
    found += [(item.run, item.kind, item.id) for item in compute.leftovers()]
    reasons = {run: _why_orphaned(bucket, run) for run in sorted({run for run, _, _ in found})}
    orphans = [Orphan(kind, name, run, why, session.region) for run, kind, name in found if (why := reasons[run])]
    orphans += [
        Orphan("dataset", item.reference, "", UNFINISHED, session.region)
        for item in datasets.abandoned(session, bucket)
    ]
    parts = [run for run in datasets.abandoned_parts(bucket) if _why_orphaned(bucket, run)]
    orphans += [Orphan("parts", run, run, PARTS, session.region) for run in parts]
    return sorted(orphans, key=lambda item: (item.run, ORDER.index(item.kind), item.id))


def _why_orphaned(bucket: Bucket, run: str) -> str | None:
    """Return why what carries this run's tag is an orphan; None while a scheduler looks after the run."""
    try:
        held = Lease(bucket, run, Owner.me()).read()
        if held is not None and held.lives(bucket.server_time()):
            return None
        if Ledger(bucket, run, "gc").read().closed:
            return "its run has ended"
        again = load_spec(bucket, run).build_command
        if held is not None:
            instead = f"{again} removes this and begins anew" if again else "`orch resume` continues the run instead"
            return f"its scheduler is gone ({instead})"
    except NotFound:
        return f"{bucket.name} holds no such run"
    except (NoPermission, Unreachable):
        raise
    except OrchError as error:
        return f"its run cannot be read ({error.message})"
    return "no scheduler was ever there"


def remove(
    session: Session, bucket: Bucket, orphans: Sequence[Orphan], on_progress: Callable[[str], None]
) -> list[Orphan]:
    """Remove orphans in their order, and return what the cloud still shows of them and their runs after the deadline.

    The cloud is listed anew before anything is removed and after: what is not an orphan any more is let be, and gone is
    only what it does not show. Raises as `find_orphans`, and for a deletion that is refused.
    """
    compute = Compute(session)
    wanted = {(item.kind, item.id) for item in orphans}
    ending: set[str] = set()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        there = find_orphans(session, bucket)
        left = [item for item in there if (item.kind, item.id) in wanted]
        if not left or time.monotonic() > deadline:
            runs = {item.run for item in orphans}
            return [item for item in there if item.run in runs]
        for item in (item for item in left if item.kind == "spot-request"):
            _delete(compute, item, on_progress)
        instances = [item.id for item in left if item.kind == "instance"]
        if new := [name for name in instances if name not in ending]:
            compute.terminate(new)
            ending |= set(new)
            on_progress(f"terminating {counted(len(new), 'instance')}")
        if not instances:
            for item in (item for item in left if item.kind not in {"spot-request", "dataset", "parts"}):
                _delete(compute, item, on_progress)
        for item in (item for item in left if item.kind == "dataset"):
            datasets.remove(session, bucket, *item.id.split("@"))
            on_progress(f"deleted dataset {item.id}")
        for item in (item for item in left if item.kind == "parts"):
            datasets.remove_parts(bucket, item.run)
            on_progress(f"deleted parts of {item.run}")
        time.sleep(0.5)


def _delete(compute: Compute, item: Orphan, on_progress: Callable[[str], None]) -> None:
    if compute.delete(Resource(cast(ResourceKind, item.kind), item.id, item.run)):
        on_progress(f"deleted {item.kind} {item.id}")
