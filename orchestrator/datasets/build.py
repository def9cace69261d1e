"""From a folder, tar files or an S3 prefix to a data set in the bucket. Killed anywhere and started again, it goes on.

Everything lies in a work folder until the manifest is written. Where the files lie in the bucket follows from what they
hold, so a build never meets another one's files, and what was uploaded once is found again.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchestrator.aws.account import ensure_bucket
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core import dataset
from orchestrator.core.dataset import Manifest
from orchestrator.core.manifest import File
from orchestrator.core.parts import is_wanted
from orchestrator.core.units import counted, format_size
from orchestrator.datasets import packer
from orchestrator.datasets.files import Digests, list_files, total
from orchestrator.datasets.progress import Progress, Tally
from orchestrator.datasets.upload import upload
from orchestrator.errors import BadInput
from orchestrator.run.datasets import Dataset, list_datasets

# Options of the trainer's that may change between two starts of one packing.
FREE = frozenset({"--processes", "--max-corrupt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be built: `source` a path or s3:// URL; `arguments` are options of the trainer's `pack`, in pairs.

    `as_is`: upload the files as they are; `originals` False: of a packed set only the smaller copies. `home` is where
    the work folder is made.
    """

    name: str
    source: str
    as_is: bool
    originals: bool
    arguments: tuple[str, ...]
    home: Path

    @property
    def work(self) -> Path:
        """The work folder: another one for another source or other options."""
        pairs = zip(self.arguments[::2], self.arguments[1::2], strict=True)
        fixed = (word for pair in pairs if pair[0] not in FREE for word in pair)
        what = "\0".join((self.source_text, str(self.as_is), *fixed))
        return self.home / f"{self.name}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"

    @property
    def source_text(self) -> str:
        """The source as it means the same from every folder."""
        return self.source if self.is_remote else str(Path(self.source).expanduser().absolute())

    @property
    def is_remote(self) -> bool:
        """Whether the source lies in S3."""
        return self.source.startswith("s3://")


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build: bytes `moved` to the bucket now, and those `kept` since they were there.

    `left_out` are the images that nothing could decode, each as `path: why`.
    """

    dataset: Dataset
    moved: int
    kept: int
    left_out: tuple[str, ...] = ()


def check(order: Order) -> None:
    """Raise BadInput for what can be known to be wrong with an order before anything is done."""
    if not order.is_remote and not Path(order.source_text).exists():
        raise BadInput(f"there is no {order.source}", "name a folder, a tar file or an s3:// prefix")
    if order.as_is and not order.is_remote and not Path(order.source_text).is_dir():
        raise BadInput(f"{order.source} is not a folder", "--as-is uploads the files of a folder; unpack it first")
    ready = not order.is_remote and _is_packed(Path(order.source_text))
    if (order.as_is or ready) and order.arguments:
        why = "--as-is packs nothing" if order.as_is else f"{order.source} is packed already"
        raise BadInput(why, f"leave out {order.arguments[0]}")
    if not order.as_is and not ready:
        packer.check()


def build(order: Order, session: Session, bucket: Bucket, now: datetime, progress: Progress) -> Built:
    """Build the data set and return it. Raises BadInput, OrchError or OSError; what was done is kept."""
    check(order)
    order.work.mkdir(parents=True, exist_ok=True)
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
    manifest = Manifest(files, now, order.source_text)
    progress.say(f"{order.name}@{manifest.version}: {counted(len(files), 'file')}, {format_size(manifest.size)}")
    ensure_bucket(session, bucket.name)
    pairs = [(file, paths[file.path]) for file in files]
    tally = upload(session, bucket, dataset.prefix(order.name, manifest.version), pairs, progress)
    made = publish(order.name, manifest, session, bucket)
    corrupt = paths.get(dataset.CORRUPT) if dataset.ABOUT in paths else None
    left_out = tuple(corrupt.read_text(errors="replace").splitlines()) if corrupt else ()
    shutil.rmtree(order.work)
    return Built(made, tally.moved, tally.kept, left_out)


def publish(name: str, manifest: Manifest, session: Session, bucket: Bucket) -> Dataset:
    """Write the manifest, unless the same data set is the newest of its name already."""
    ready = [item for item in list_datasets(session, bucket, name) if item.manifest is not None]
    if ready and ready[-1].version == manifest.version:
        return ready[-1]
    bucket.put(dataset.manifest_key(name, manifest.version), manifest.to_json(), content_type="application/json")
    size, count = manifest.size, len(manifest.files)
    return Dataset(bucket.name, name, manifest.version, manifest, count, size, manifest.created)


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
