"""The parts that the nodes of a run packed become a data set, by one command at a time.

The nodes write parts of files and the digests of the whole below their run's prefix, and nothing else: putting the
files together is copying within S3, done here with the rights of whoever builds. Who does it holds the run's lease,
which its scheduler has let go of by then: of two commands the second waits, and one that was killed, or fell asleep, is
taken over from. Killed anywhere it can be done again.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from datetime import datetime

from orchestrator.aws.account import ensure_bucket
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.uploads import Uploads
from orchestrator.core import dataset
from orchestrator.core.dataset import Manifest, Origin
from orchestrator.core.manifest import File
from orchestrator.core.parts import PartKeys, make_spans
from orchestrator.datasets.build import Built, publish, unless_changed
from orchestrator.datasets.order import Order
from orchestrator.datasets.origin import find_built
from orchestrator.datasets.progress import Progress, Tally
from orchestrator.datasets.upload import is_noted
from orchestrator.errors import OrchError
from orchestrator.run.datasets import list_datasets, remove_parts
from orchestrator.run.lease import Lease, Owner, kept

PAUSE = 1.0
# A scheduler that has just ended its run may take so many looks to let go of it: nobody need be told.
UNSAID = 10


@dataclass(frozen=True, slots=True)
class Packing:
    """What the nodes of `run` packed; `anew`: what was put together of it before is not to be believed."""

    run: str
    order: Order
    origin: Origin
    anew: bool = False


def is_packed(bucket: Bucket, run: str) -> bool:
    """Tell whether the nodes of a run have done all they do, and their parts wait to be put together."""
    return bucket.head(PartKeys(run).joined) is not None


def join(packing: Packing, session: Session, bucket: Bucket, now: datetime, progress: Progress) -> Built:
    """Put the parts of a run together, write the manifest, and remove the parts; or find that somebody just did.

    Raises OrchError.
    """
    lease = _wait_for_lease(packing.run, bucket, progress)
    with kept(lease, bucket.server_time):
        if is_packed(bucket, packing.run):
            return _join(packing, session, bucket, now, progress)
        made = find_built(packing.order, packing.origin, session, bucket)
    if made is None:
        raise OrchError(f"the parts of {packing.run} are not there any more", _what_there_is(packing, session, bucket))
    return Built(made, 0, made.size, fresh=False)


def _what_there_is(packing: Packing, session: Session, bucket: Bucket) -> str:
    """Return the next step where no parts are: of a set without an origin nobody can say that it is this run's."""
    order = packing.order
    made = [(item, item.manifest) for item in list_datasets(session, bucket, order.name)]
    alike = [item for item, of in made if of is not None and (of.source, of.origin) == (order.source, None)]
    if not alike:
        return "`orch dataset list` shows what there is"
    return f"{alike[-1].reference} is there, made of {order.source}: somebody may have put it together meanwhile"


def _wait_for_lease(run: str, bucket: Bucket, progress: Progress) -> Lease:
    lease, looks = Lease(bucket, run, Owner.me()), 0
    while not lease.try_acquire(bucket.server_time()):
        looks += 1
        held = lease.read()
        if looks == UNSAID and held is not None:
            progress.say(f"waiting for {held.owner.machine}, process {held.owner.pid}, which puts {run} together")
        time.sleep(PAUSE)
    return lease


def _join(packing: Packing, session: Session, bucket: Bucket, now: datetime, progress: Progress) -> Built:
    order, keys, uploads = packing.order, PartKeys(packing.run), Uploads(session, bucket.name)
    pieces = keys.pieces((item.key, item.size) for item in bucket.list(keys.packed))
    large, small = _files(bucket, keys, pieces)
    files = [*large, *(File(path, len(body), hashlib.sha256(body).hexdigest()) for path, body in small.items())]
    phases = dataset.find_phases([file.path for file in files])
    files = [File(f.path, f.size, f.sha256, phases[f.path]) for f in sorted(files, key=lambda f: f.path)]
    manifest = Manifest(tuple(files), now, order.source, unless_changed(order, packing.origin, session, progress))
    prefix = dataset.prefix(order.name, manifest.version)
    ensure_bucket(session, bucket.name)
    # Of one that was killed; what comes later is of one that took over from this one.
    left = uploads.pending(prefix)
    there = {item.key: item for item in bucket.list(prefix)}
    tally = Tally(progress, "joining", manifest.size)
    for file in files:
        key = prefix + file.path
        if not packing.anew and is_noted(bucket, there.get(key), file):
            tally.keep(file.size)
        elif file.path in small:
            bucket.put(key, small[file.path], sha256=file.sha256)
            tally.move(file.size)
        else:
            sources, sizes = zip(*pieces[file.path], strict=True)
            uploads.join(key, file.sha256, sources, make_spans(sizes), tally.move)
    for upload in left:
        uploads.abort(upload)
    made = publish(order.name, manifest, session, bucket)
    remove_parts(bucket, packing.run)
    left_out = small.get(dataset.CORRUPT, b"").decode(errors="replace").splitlines()
    return Built(made, tally.moved, tally.kept, tuple(left_out))


def _files(
    bucket: Bucket, keys: PartKeys, pieces: dict[str, list[tuple[str, int]]]
) -> tuple[list[File], dict[str, bytes]]:
    """Return the files that are put together of pieces, and the content of all others. Raises OrchError."""
    found = json.loads(bucket.get(keys.joined))
    large = [File(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in found["files"]]
    wrong = [file.path for file in large if sum(size for _, size in pieces.get(file.path, ())) != file.size]
    if wrong:
        raise OrchError(f"parts of {wrong[0]} are missing at s3://{bucket.name}/{keys.packed}", "build it anew")
    return large, {str(path): bucket.get(keys.small_file(path)) for path in found["small"]}
