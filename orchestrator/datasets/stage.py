"""Data from the bucket into a folder here, by what the nodes stage with: verified, and going on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.agent.config import DataSource
from orchestrator.agent.digest import matches_etag
from orchestrator.agent.fetch import Corrupt, Item, fetch_all
from orchestrator.agent.listing import find_items
from orchestrator.agent.meter import Meter
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core import manifest
from orchestrator.core.units import format_size
from orchestrator.datasets.files import sha256_of
from orchestrator.datasets.progress import Progress, Tally
from orchestrator.errors import BadInput, NotFound, OrchError
from orchestrator.run.datasets import Dataset

READERS = 8
SPARE = 0.99  # of the free disk: the rest is for the file system itself


class _Counter(Meter):
    """Has the engine count for a tally instead of for the beacon of a node."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def found(self, count: int, phase: int = 0) -> None:
        """Take `count` bytes that were here already."""
        self._tally.keep(count)

    def add(self, count: int, phase: int = 0) -> None:
        """Take `count` more bytes."""
        self._tally.move(count)


def stage(bucket: Bucket, item: Dataset, folder: Path, progress: Progress) -> Tally:
    """Make `folder` hold the files of a data set; files there that are right are not moved. Other files stay.

    Raises OrchError with every object that is not what the manifest says (what is wrong is not left in the folder),
    BadInput when the disk is too small.
    """
    if item.manifest is None:
        raise NotFound(f"{item.reference} is not finished", "`orch dataset build` with the same source goes on with it")
    there = {found.key: found for found in bucket.list(item.prefix)}
    digests = {item.prefix + file.path: file.sha256 for file in item.manifest.files}
    faults = [
        f"{key.removeprefix(item.prefix)} is missing"
        if key not in there
        else f"{key.removeprefix(item.prefix)} has {there[key].size:,} bytes, not {size:,}"
        for key, size in ((item.prefix + file.path, file.size) for file in item.manifest.files)
        if key not in there or there[key].size != size
    ]
    if faults:
        raise _damaged(item, faults)
    wanted = [
        Item(bucket, key, there[key].size, there[key].etag, folder / key.removeprefix(item.prefix)) for key in digests
    ]
    tally = Tally(progress, "staging", item.size)
    wrong = _fetch(wanted, digests, tally, progress)
    if wrong:
        raise _damaged(item, [f"{key.removeprefix(item.prefix)} has another sha256" for key in wrong])
    return tally


def fetch_prefix(session: Session, url: str, folder: Path, progress: Progress) -> None:
    """Fetch everything under an s3:// URL into `folder`, each object checked against its tag. Raises NotFound."""
    source = DataSource.from_json({"name": "source", "source": url, "mount": ""})
    bucket = Bucket(session, source.bucket)
    wanted = [item for item in find_items(bucket, source, folder) if item.path != folder / manifest.NAME]
    if not wanted:
        raise NotFound(f"there is nothing at {url}", "name a prefix, as of a folder")
    tally = Tally(progress, "fetching", sum(item.size for item in wanted))
    _fetch(wanted, {}, tally, progress)


def _fetch(wanted: Sequence[Item], digests: Mapping[str, str], tally: Tally, progress: Progress) -> list[str]:
    """Fetch what is not there, many at once; return the keys of what has another sha256 than in `digests`."""

    def right(item: Item) -> bool:
        if not item.path.is_file() or item.path.stat().st_size != item.size:
            return False
        if item.key in digests:
            return sha256_of(item.path) == digests[item.key]
        return matches_etag(item.path, item.etag) is True

    _check_room(wanted)
    with ThreadPoolExecutor(READERS, thread_name_prefix="stage") as pool:
        there = list(pool.map(right, wanted))
        missing = [item for item, is_there in zip(wanted, there, strict=True) if not is_there]
        tally.keep(sum(item.size for item in wanted) - sum(item.size for item in missing))
        for item in missing:
            item.path.unlink(missing_ok=True)  # the engine goes by entity tags, which say less
        fetch_all(missing, _Counter(tally), progress.say)
        came = [item for item in missing if item.key in digests]
        wrong = [item for item, is_right in zip(came, pool.map(right, came), strict=True) if not is_right]
    for item in wrong:
        item.path.unlink()
    return [item.key for item in wrong]


def _check_room(wanted: Sequence[Item]) -> None:
    """Raise BadInput when what is not there yet does not fit the disk."""
    missing = sum(item.size for item in wanted if not item.path.is_file())
    place = next(parent for parent in wanted[0].path.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if missing > free * SPARE:
        raise BadInput(
            f"{format_size(missing)} are to come to {place}, where {format_size(free)} are free",
            "name a folder on a larger disk",
        )


def _damaged(item: Dataset, faults: Sequence[str]) -> OrchError:
    count = f"{len(faults)} of {item.objects:,} objects are" if len(faults) > 1 else f"1 of {item.objects:,} objects is"
    return Corrupt(
        f"{item.url} is damaged: {count} not what the manifest says",
        f"`orch dataset build` from the same source mends it, `orch dataset rm {item.reference}` removes it",
        details=tuple(faults),
    )
