"""Data from the bucket into a folder here, by the engine of the nodes: verified, and going on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.agent.config import DataSource
from orchestrator.agent.fetch import Item, fetch_all, missing
from orchestrator.agent.known import Known
from orchestrator.agent.listing import find_items
from orchestrator.agent.meter import Meter
from orchestrator.agent.staging import check_room
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.datasets.progress import Progress, Stage, Tally
from orchestrator.errors import BadInput, NotFound, OrchError
from orchestrator.run.datasets import Dataset


class _Counter(Meter):
    """Has the engine count for a tally instead of for the beacon of a node."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def found(self, count: int, phase: int = 0) -> None:
        """Take `count` bytes that were here already."""
        self._tally.keep(count)

    def add(self, count: int, phase: int = 0) -> None:
        """Take `count` bytes that came (fewer, when negative: a file is fetched again)."""
        self._tally.move(count)


def stage(bucket: Bucket, item: Dataset, folder: Path, progress: Progress) -> Tally:
    """Make `folder` hold the files of a data set; what is there and right is not moved. Other files stay.

    Raises Corrupt naming all that is not as the manifest says (no such file is left in the folder), BadInput when the
    disk is too small, OSError.
    """
    items = find_items(bucket, DataSource(item.name, bucket.name, item.prefix, ""), folder)
    return _fetch(items, folder, progress, "staging")


def fetch_prefix(session: Session, url: str, folder: Path, progress: Progress) -> None:
    """Fetch everything under an s3:// URL into `folder`, checked by its manifest or else by entity tags.

    Raises NotFound where there is nothing, and what `stage` raises.
    """
    source = DataSource.from_json({"name": "source", "source": url, "mount": ""})
    try:
        items = find_items(Bucket(session, source.bucket), source, folder)
    except NotFound as error:
        raise NotFound(error.message, "name an s3:// prefix with objects below it") from error
    _fetch(items, folder, progress, "fetching")


def _fetch(items: Sequence[Item], folder: Path, progress: Progress, stage: Stage) -> Tally:
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    tally = Tally(progress, stage, sum(item.size for item in items))
    counter, known = _Counter(tally), Known(None)
    lacking = missing(items, counter, known)
    try:
        check_room(lacking, there)
    except OrchError as error:
        raise BadInput(error.message, "name a folder on a larger disk") from error
    fetch_all(lacking, counter, progress.say, known, name_all=True)
    return tally
