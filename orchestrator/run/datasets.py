"""The data sets of a bucket: which there are, which one an experiment means, who uses one, and removing one.

`orchestrator.datasets` builds and stages them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.uploads import Uploads
from orchestrator.core import dataset
from orchestrator.core.dataset import Manifest, Reference
from orchestrator.core.estimates import storage_month
from orchestrator.core.experiment import Experiment
from orchestrator.core.parts import PartKeys
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import iso, usd
from orchestrator.core.volumes import Snapshot
from orchestrator.errors import BadInput, NotFound, OrchError
from orchestrator.run.read import READERS, list_runs, open_runs

# A build that added nothing for so long is not being built any more; a part of an upload takes minutes at worst.
QUIET = timedelta(hours=1)
# So many files that are gone are named.
NAMED = 20
MEND = "`orch dataset build` with the same source puts its files back"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A version of a data set; `objects` and their bytes `size` as the manifest has them, or as they have come so far.

    `manifest` is None while it is not finished, or where the manifest cannot be read, which `fault` then says. `last`
    is when it was built, or when something was last added.
    """

    bucket: str
    name: str
    version: str
    manifest: Manifest | None
    objects: int
    size: int
    last: datetime
    fault: str = ""

    @property
    def reference(self) -> str:
        """`NAME@VERSION`."""
        return f"{self.name}@{self.version}"

    @property
    def url(self) -> str:
        """What an experiment may name as its source."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def prefix(self) -> str:
        """What its keys begin with."""
        return dataset.prefix(self.name, self.version)

    @property
    def state(self) -> str:
        """`ready`, `unfinished` or `damaged`."""
        return "damaged" if self.fault else "unfinished" if self.manifest is None else "ready"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; without the files."""
        made = self.manifest
        return {
            "name": self.name,
            "version": self.version,
            "state": self.state,
            "url": self.url,
            "files": self.objects,
            "bytes": self.size,
            "digest": made.digest if made else None,
            "source": made.source if made else None,
            "time": iso(self.last),
            "usd_month": usd(storage_month(self.size)),
            "fault": self.fault or None,
        }


def list_datasets(
    session: Session, bucket: Bucket, name: str = "", snapshots: Sequence[Snapshot] = ()
) -> list[Dataset]:
    """Return the versions of data set `name` ("": of all), by name and time; none when there is no bucket yet.

    Of what only one of the published `snapshots` is left is among them, as damaged: it is paid for.
    """
    uploads = Uploads(session, bucket.name)
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda place: _read(bucket, uploads, *place), _places(bucket, uploads, name))
    found = {(item.name, item.version): item for item in read if item is not None}
    lost = {(made.name, made.version): _lost(bucket, made) for made in snapshots}
    return sorted((lost | found).values(), key=lambda item: (item.name, item.last))


def find(session: Session, bucket: Bucket, text: str, snapshots: Sequence[Snapshot] = ()) -> Dataset:
    """Return the data set that `text` names, the newest version that is ready. Raises BadInput, NotFound.

    With `snapshots`, as in `list_datasets`, one of which only a snapshot is left is said to be that.
    """
    wanted = parse(text)
    found = named(session, bucket, wanted, snapshots)
    ready = [item for item in found if item.manifest is not None]
    if not ready:
        last = found[-1]
        why = f"cannot be used: {last.fault}" if last.fault else "is not finished, or has lost its manifest"
        completes = "`orch dataset build` with the same source completes it"
        raise NotFound(f"{last.reference} {why}", MEND if last.fault else completes)
    if wanted.version and len(ready) > 1:
        versions = ", ".join(item.version for item in ready)
        raise BadInput(f"{text} may be one of {versions}", "give more digits of the version")
    return ready[-1]


def named(session: Session, bucket: Bucket, wanted: Reference, snapshots: Sequence[Snapshot] = ()) -> list[Dataset]:
    """Return the versions that `wanted` names, finished or not, oldest first. Raises NotFound when there are none.

    `snapshots` are as in `list_datasets`.
    """
    versions = list_datasets(session, bucket, wanted.name, snapshots)
    found = [item for item in versions if item.version.startswith(wanted.version)]
    if found:
        return found
    if versions:
        raise NotFound(
            f"{wanted.name} has no version {wanted.version}", f"it has {', '.join(item.version for item in versions)}"
        )
    near = get_close_matches(wanted.name, {item.name for item in list_datasets(session, bucket)}, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise NotFound(
        f"there is no data set {wanted.name}", f"{meant}`orch dataset list` shows them, `orch dataset build` makes one"
    )


def check_files(bucket: Bucket, item: Dataset) -> None:
    """Raise NotFound when not every file of the manifest lies in S3 with its size; what is in them is not read."""
    there = {found.key: found.size for found in bucket.list(item.prefix)}
    files = item.manifest.files if item.manifest is not None else ()
    wrong = dataset.lost(files, item.prefix, there)
    if wrong:
        raise NotFound(
            f"{item.reference} {dataset.how_damaged(files, wrong)}",
            f"{MEND}, `orch dataset rm {item.reference}` removes it",
            details=tuple(wrong[:NAMED]),
        )


def parse(text: str) -> Reference:
    """Return what `text` names. Raises BadInput."""
    try:
        return Reference.parse(text)
    except ValueError as error:
        raise BadInput(str(error), "`orch dataset list` shows the names") from error


def resolve(experiment: Experiment, session: Session, bucket: Bucket) -> Experiment:
    """Return the experiment with every `dataset:NAME` as the s3:// URL of what is there now.

    Raises NotFound with all data sets that are not there, each with its key and what there is.
    """
    data = dict(experiment.data)
    errors: dict[str, OrchError] = {}
    for key, item in experiment.data.items():
        if item.source.startswith(dataset.SCHEME):
            try:
                data[key] = item.model_copy(update={"source": find(session, bucket, item.source).url})
            except (NotFound, BadInput) as error:
                errors[f"data.{key}"] = error
                continue
    if len(errors) > 1:
        raise NotFound(
            f"{len(errors)} data sets cannot be had: {', '.join(errors)}",
            "mend what is listed; `orch dataset list` shows what there is",
            details=tuple(f"{key}: {each.message}: {each.hint}" for key, each in errors.items()),
        )
    for key, only in errors.items():
        raise NotFound(f"{key}: {only.message}", only.hint)
    return experiment if data == experiment.data else experiment.model_copy(update={"data": data})


def users(bucket: Bucket, items: Iterable[Dataset]) -> list[str]:
    """Return the runs of the bucket that have not ended and name one of `items` as a source of data."""
    wanted = [f"{item.url}/" for item in items]

    def uses(spec: RunSpec) -> bool:
        sources = [f"{data.source.rstrip('/')}/" for data in spec.experiment.data.values()]
        return any(source.startswith(url) or url.startswith(source) for source in sources for url in wanted)

    return open_runs(bucket, uses)


def remove(session: Session, bucket: Bucket, name: str, version: str) -> None:
    """Remove a data set: its manifest first, so that nobody takes what is left for the whole."""
    uploads = Uploads(session, bucket.name)
    prefix = dataset.prefix(name, version)
    # Of what has lost its files the bucket may be gone too.
    with suppress(NotFound):
        bucket.delete(dataset.manifest_key(name, version))
        for upload in uploads.pending(prefix):
            uploads.abort(upload)
        bucket.delete_prefix(prefix)


def abandoned(session: Session, bucket: Bucket) -> list[Dataset]:
    """Return builds that were not finished and to which nothing was added for a while."""
    uploads = Uploads(session, bucket.name)
    places = _places(bucket, uploads, "")
    without = [place for place in places if bucket.head(dataset.manifest_key(*place)) is None]
    found = [item for place in without if (item := _unfinished(bucket, uploads, *place)) is not None]
    return [item for item in found if bucket.server_time() - item.last > QUIET]


def abandoned_parts(bucket: Bucket) -> list[str]:
    """Return the runs whose nodes packed parts of a data set that nobody put together, and that are quiet by now."""

    def is_quiet(run: str) -> bool:
        times = [item.last_modified for item in bucket.list(PartKeys(run).prefix)]
        return bool(times) and bucket.server_time() - max(times) > QUIET

    runs = list_runs(bucket)
    with ThreadPoolExecutor(READERS) as pool:
        return [run for run, quiet in zip(runs, pool.map(is_quiet, runs), strict=True) if quiet]


def remove_parts(bucket: Bucket, run: str) -> None:
    """Remove the parts that the nodes of a run packed; first what says that they are whole."""
    bucket.delete(PartKeys(run).joined)
    bucket.delete_prefix(PartKeys(run).prefix)


def _places(bucket: Bucket, uploads: Uploads, name: str) -> list[tuple[str, str]]:
    """Return name and version of all data sets that were begun, of data set `name` alone where one is given."""
    above = f"{dataset.ROOT}{name}/" if name else dataset.ROOT
    try:
        names = [above] if name else bucket.list_folders(above)
        found = {folder for each in names for folder in bucket.list_folders(each)}
    except NotFound:
        return []
    # The first file of a build may be a large one, of which there is no object yet.
    found |= {"/".join([*item.key.split("/")[:3], ""]) for item in uploads.pending(above)}
    return sorted((each.split("/")[1], each.split("/")[2]) for each in found if dataset.is_prefix(each))


def _read(bucket: Bucket, uploads: Uploads, name: str, version: str) -> Dataset | None:
    """Return a data set, None when it has just gone."""
    try:
        body = bucket.get(dataset.manifest_key(name, version))
    except NotFound:
        return _unfinished(bucket, uploads, name, version)
    try:
        made = Manifest.from_json(body)
    except ValueError as error:
        found = _unfinished(bucket, uploads, name, version)
        fault = f"its manifest cannot be read: {error}"
        return found and Dataset(bucket.name, name, version, None, found.objects, found.size, found.last, fault)
    return Dataset(bucket.name, name, version, made, len(made.files), made.size, made.created)


def _lost(bucket: Bucket, made: Snapshot) -> Dataset:
    reference = f"{made.name}@{made.version}"
    fault = f"only a snapshot is left, nothing in {bucket.name}: `orch dataset rm {reference}` removes it"
    return Dataset(bucket.name, made.name, made.version, None, 0, 0, made.created, fault)


def _unfinished(bucket: Bucket, uploads: Uploads, name: str, version: str) -> Dataset | None:
    """Return what there is of a data set without a manifest, None when it has just gone."""
    prefix = dataset.prefix(name, version)
    objects = bucket.list(prefix)
    pending = uploads.pending(prefix)
    parts = [part for upload in pending for part in uploads.parts(upload).values()]
    times = [item.last_modified for item in objects] + [item.begun for item in pending] + [part.at for part in parts]
    if not times:
        return None
    size = sum(item.size for item in objects) + sum(part.size for part in parts)
    return Dataset(bucket.name, name, version, None, len(objects), size, max(times))
