"""What a data set is made of, and whether it has been made already. Reads only; fetches and digests nothing.

The manifest of a data set names its origin: so any machine can tell that there is nothing to do, without reading a byte
of the source. In doubt it is built again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.aws.s3 import Bucket, ObjectInfo
from orchestrator.aws.session import Session
from orchestrator.core.dataset import CORRUPT, Manifest, Origin, listing_digest
from orchestrator.core.ids import bucket_and_prefix
from orchestrator.datasets.order import DEFAULTS, LABELS, MAX_CORRUPT, PROCESSES, Order
from orchestrator.errors import NotFound
from orchestrator.run.datasets import Dataset, list_datasets

Row = tuple[str, int, str]  # name, bytes, and what changes with the content: S3's tag, or the time of a file


def list_source(order: Order, session: Session) -> tuple[Row, ...]:
    """Return every file of a source: of objects with their entity tags, of files here with their times.

    Raises NotFound where nothing lies at an s3:// URL, OSError.
    """
    if order.is_remote:
        name, prefix = bucket_and_prefix(order.source)
        found = tuple(
            (item.key.removeprefix(prefix), item.size, item.etag) for item in Bucket(session, name).list(prefix)
        )
        if not found:
            raise NotFound(f"nothing at {order.source}", "name an s3:// prefix with images or tars below it")
        return found
    root = Path(order.source_text)
    files = [root] if root.is_file() else (path for path in root.rglob("*") if path.is_file())
    above = root.parent if root.is_file() else root
    return tuple((path.relative_to(above).as_posix(), *_size_and_time(path)) for path in files)


def origin_of(order: Order, rows: Iterable[Row]) -> Origin:
    """Return the origin of what an order makes of a source with these files. Raises OSError (the file of labels)."""
    pairs = dict(order.pairs)
    if LABELS in pairs:
        pairs[LABELS] = hashlib.sha256(Path(pairs[LABELS]).read_bytes()).hexdigest()
    return Origin(listing_digest(rows), options_of(pairs, as_is=order.as_is, originals=order.originals))


def options_of(pairs: dict[str, str], *, as_is: bool, originals: bool) -> tuple[str, ...]:
    """Return what decides the content beside the source, in order of names; of labels `pairs` has the digest."""
    flags = [*(["--as-is"] if as_is else []), *([] if originals else ["--copies-only"])]
    every = pairs if as_is else DEFAULTS | pairs
    return (*flags, *(word for pair in sorted(every.items()) if pair[0] != PROCESSES for word in pair))


def find_built(order: Order, origin: Origin, session: Session, bucket: Bucket) -> Dataset | None:
    """Return the newest version of an order's data set that was made of just this and is whole in S3, None without."""
    for item in reversed(list_datasets(session, bucket, order.name)):
        if item.manifest is not None and _is_of(item.manifest, origin) and is_whole(bucket, item):
            return item
    return None


def is_whole(bucket: Bucket, item: Dataset) -> bool:
    """Tell whether the objects of a data set are those that its manifest was written for."""
    made = item.manifest
    return made is not None and made.stored == stored(made, item.prefix, bucket.list(item.prefix))


def stored(made: Manifest, prefix: str, objects: Sequence[ObjectInfo]) -> str:
    """Return the digest of those of `objects` that are the files of a data set below `prefix`."""
    wanted = {prefix + file.path for file in made.files}
    return listing_digest((item.key, item.size, item.etag) for item in objects if item.key in wanted)


def _is_of(made: Manifest, origin: Origin) -> bool:
    """Tell whether a data set was made of `origin`; how many images may be left out matters where some were."""
    if made.origin is None or made.origin.source != origin.source:
        return False
    if any(file.path == CORRUPT for file in made.files):
        return made.origin.options == origin.options
    return _without_share(made.origin.options) == _without_share(origin.options)


def _without_share(options: Sequence[str]) -> list[str]:
    words = list(options)
    if MAX_CORRUPT in words:
        at = words.index(MAX_CORRUPT)
        del words[at : at + 2]
    return words


def _size_and_time(path: Path) -> tuple[int, str]:
    status = path.stat()
    return status.st_size, str(status.st_mtime_ns)
