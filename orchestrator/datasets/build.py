"""From a folder, tar files or an S3 prefix to a data set in the bucket. Killed anywhere and started again, it goes on.

Everything lies in a work folder until the manifest is written. Where the files lie in the bucket follows from what they
hold, so a build never meets another one's files, and what was uploaded once is found again.
"""

from __future__ import annotations

import shutil
from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from orchestrator.aws.account import ensure_bucket
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core import dataset
from orchestrator.core.dataset import Manifest, Origin, listing_digest
from orchestrator.core.manifest import File
from orchestrator.core.parts import is_wanted
from orchestrator.core.units import counted, format_size
from orchestrator.datasets import packer
from orchestrator.datasets.alone import NOTE, alone
from orchestrator.datasets.files import Digests, list_files, total
from orchestrator.datasets.order import Order
from orchestrator.datasets.origin import find_built, list_source, origin_of, stored
from orchestrator.datasets.preview import refuse
from orchestrator.datasets.progress import Progress, Tally
from orchestrator.datasets.upload import upload
from orchestrator.errors import BadInput, NoPermission, NotFound
from orchestrator.run.datasets import Dataset, list_datasets


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build: bytes `moved` to the bucket now, and those `kept` since they were there.

    `left_out` are the images that nothing could decode, each as `path: why`. `fresh` False: it was there, so that
    nothing was done.
    """

    dataset: Dataset
    moved: int
    kept: int
    left_out: tuple[str, ...] = ()
    fresh: bool = True


def faults(order: Order) -> list[BadInput]:
    """Return what can be known to be wrong with an order before anything is done, none where nothing is."""
    found = order.source_faults
    here = None if order.is_remote else Path(order.source_text)
    if here is not None and not here.exists():
        found += [BadInput(f"there is no {order.source}", "name a folder, a tar file or an s3:// prefix")]
    elif order.as_is and here is not None and not here.is_dir():
        what = f"{order.source} is not a folder"
        found += [BadInput(what, "--as-is uploads the files of a folder; unpack it first")]
    ready = here is not None and _is_packed(here)
    if (order.as_is or ready) and order.arguments:
        why = "--as-is packs nothing" if order.as_is else f"{order.source} is packed already"
        found += [BadInput(why, f"leave out {', '.join(order.pairs)}")]
    if not order.as_is and not ready:
        found += packer.faults()
    return found


def build(
    order: Order, session: Session, bucket: Bucket, now: datetime, progress: Progress, *, force: bool = False
) -> Built:
    """Build the data set, unless it is there (`force`: then too), and return it; here one at a time.

    Raises BadInput, NotFound, OrchError or OSError; what was done is kept.
    """
    for fault in faults(order):
        raise fault
    with alone(order, progress):
        return _build(order, session, bucket, now, progress, force=force)


def _build(order: Order, session: Session, bucket: Bucket, now: datetime, progress: Progress, *, force: bool) -> Built:
    rows = list_source(order, session)
    origin = origin_of(order, rows)
    if not force and (there := built_before(order, origin, session, bucket, now)):
        return there
    refuse(order, rows, session)
    order.work.mkdir(parents=True, exist_ok=True)
    _forget_another_source(order, origin, {name for name, *_ in rows})
    folder = _folder(order, session, progress)
    paths = list_files(folder)
    if not order.originals and dataset.ABOUT in paths:
        paths = {name: path for name, path in paths.items() if is_wanted(name, originals=False)}
        if len(paths) == 1:
            raise BadInput(f"{order.source} has no smaller copies", "leave out --copies-only, or give --sizes")
    reading = Tally(progress, "reading", total(list(paths.values())))
    digested = Digests(order.work / "digests.json").of(paths, reading.keep)
    phases = dataset.find_phases(paths)
    files = tuple(File(file.path, file.size, file.sha256, phases[file.path]) for file in digested)
    manifest = Manifest(files, now, order.source_text, unless_changed(order, origin, session, progress))
    progress.say(f"{order.name}@{manifest.version}: {counted(len(files), 'file')}, {format_size(manifest.size)}")
    ensure_bucket(session, bucket.name)
    pairs = [(file, paths[file.path]) for file in files]
    tally = upload(session, bucket, dataset.prefix(order.name, manifest.version), pairs, progress, believe=not force)
    made = publish(order.name, manifest, session, bucket)
    corrupt = paths.get(dataset.CORRUPT) if dataset.ABOUT in paths else None
    left_out = tuple(corrupt.read_text(errors="replace").splitlines()) if corrupt else ()
    shutil.rmtree(order.work)
    return Built(made, tally.moved, tally.kept, left_out)


def built_before(order: Order, origin: Origin, session: Session, bucket: Bucket, now: datetime | None) -> Built | None:
    """Return what is there of an order when that is all of it, None when it is to be built.

    It becomes the newest of its name, as it would by being built; `now` None: it stays as it is.
    """
    there = find_built(order, origin, session, bucket)
    if there is None or there.manifest is None:
        return None
    if now is not None:
        there = publish(order.name, replace(there.manifest, created=now), session, bucket)
    packed = {file.path for file in there.manifest.files} if there.manifest else set()
    corrupt = bucket.get(there.prefix + dataset.CORRUPT) if {dataset.ABOUT, dataset.CORRUPT} <= packed else b""
    left_out = tuple(corrupt.decode(errors="replace").splitlines())
    return Built(there, 0, there.size, left_out, fresh=False)


def unless_changed(order: Order, origin: Origin, session: Session, progress: Progress) -> Origin | None:
    """Return `origin` when the source still is what it was, else None: of what the data set was made, nobody knows.

    An origin that names no source is that of a run of before there were any.
    """
    if not origin.source:
        return None
    what = f"{order.source} was changed meanwhile; the same command again builds what is there now"
    try:
        if listing_digest(list_source(order, session)) == origin.source:
            return origin
    except NotFound:
        pass
    except NoPermission as error:
        what = f"{order.source} may not be listed, so nobody knows whether it still is what was packed: {error.message}"
    progress.say(what)
    return None


def publish(name: str, manifest: Manifest, session: Session, bucket: Bucket) -> Dataset:
    """Write the manifest, with what lies in S3 for it, unless the same data set is the newest of its name already."""
    prefix = dataset.prefix(name, manifest.version)
    manifest = replace(manifest, stored=stored(manifest, prefix, bucket.list(prefix)))
    ready = [item for item in list_datasets(session, bucket, name) if item.manifest is not None]
    known = ready[-1].manifest if ready and ready[-1].version == manifest.version else None
    if known is not None and (known.origin, known.stored) == (manifest.origin, manifest.stored):
        return ready[-1]
    if known is not None:  # the same files: it stays as old as it is
        manifest = replace(manifest, created=known.created)
    bucket.put(dataset.manifest_key(name, manifest.version), manifest.to_json(), content_type="application/json")
    size, count = manifest.size, len(manifest.files)
    return Dataset(bucket.name, name, manifest.version, manifest, count, size, manifest.created)


def _forget_another_source(order: Order, origin: Origin, names: Set[str]) -> None:
    """Remove what an earlier start packed of a source that was changed since then, or fetched and is gone from it."""
    note = order.work / NOTE
    if note.exists() and note.read_text() != origin.source:
        shutil.rmtree(order.work / "packed", ignore_errors=True)
        fetched = order.work / order.name
        for path in [path for path in fetched.rglob("*") if path.is_file()]:
            if path.relative_to(fetched).as_posix() not in names:
                path.unlink()
    note.write_text(origin.source)


def _folder(order: Order, session: Session, progress: Progress) -> Path:
    """Return the folder whose files are to be uploaded, having fetched and packed what has to be."""
    source = _fetch(order, session, progress) if order.is_remote else Path(order.source_text)
    if order.as_is or _is_packed(source):
        return source
    packed = order.work / "packed"
    packer.pack(source, packed, ("--name", order.name, *order.arguments), progress)
    return packed


def _is_packed(folder: Path) -> bool:
    return (folder / dataset.ABOUT).is_file()


def _fetch(order: Order, session: Session, progress: Progress) -> Path:
    from orchestrator.datasets.stage import fetch_prefix

    target = order.work / order.name
    fetch_prefix(session, order.source, target, progress)
    return target
