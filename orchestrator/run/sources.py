"""What there is of the data sets that an experiment names: bytes in S3, what is damaged of them, their snapshots.

Reads only. What cannot be had in any way is refused here, before anything is launched; `run.volumes` chooses the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.snapshots import Snapshots
from orchestrator.core import dataset, manifest
from orchestrator.core.experiment import Data, Experiment
from orchestrator.core.ids import bucket_and_prefix
from orchestrator.core.manifest import File
from orchestrator.core.units import first_of
from orchestrator.core.volumes import Snapshot, newest
from orchestrator.errors import NoPermission, NotFound
from orchestrator.run.datasets import MEND

NAMED = 3  # files of a damaged data set that are named
UPLOAD = "upload the data set first, or mend data.*.source"
SNAPSHOT = "`orch dataset snapshot NAME` makes one, or say mode: stage"


@dataclass(frozen=True, slots=True)
class There:
    """What there is of one data set: `size` (bytes) of its objects and, in words, their `damage`, "" without any.

    `version` is its name and version, None where `orch` did not make it: then it has no snapshots. `snapshot` is the
    newest that volumes can be made of; `lacking` says, "" where there is one, why there is none.
    """

    size: int
    damage: str = ""
    version: tuple[str, str] | None = None
    snapshot: Snapshot | None = None
    lacking: str = ""


class Fault(NamedTuple):
    """Why the data set that the experiment calls `name` cannot be had, and what to do about it."""

    name: str
    why: str
    hint: str


def look(experiment: Experiment, session: Session, bucket: str) -> dict[str, There]:
    """Return what there is of each data set by its key; `bucket` is that of the runs.

    Raises NotFound with all that cannot be had: nothing is there, or not all by their manifest and no snapshot either,
    or the experiment wants the way that does not work.
    """
    wanted = any(data.mode != "stage" and dataset.named_by(data.source, bucket) for data in experiment.data.values())
    published = Snapshots(session).published() if wanted else ()
    found, faults = find(experiment, session, bucket, published)
    if faults:
        told = "; ".join(f"data.{fault.name}: {fault.why}" for fault in faults)
        raise NotFound(told, "; ".join(dict.fromkeys(fault.hint for fault in faults)))
    return found


def find(
    experiment: Experiment, session: Session, bucket: str, published: Sequence[Snapshot]
) -> tuple[dict[str, There], list[Fault]]:
    """Return what there is of each data set, as `look` does, and what cannot be had; `published` are the snapshots."""
    found: dict[str, There] = {}
    faults: list[Fault] = []
    for name, data in experiment.data.items():
        version = dataset.named_by(data.source, bucket)
        made = newest(published, *version) if version is not None else None
        lacking = _lacking(data.source, version, made, session.region)
        try:
            size, damage = _objects(data.source, session)
        except NotFound as error:
            faults.append(Fault(name, error.message, error.hint))
            size, damage = 0, ""
        found[name] = There(size, damage, version, None if lacking else made, lacking)
        faults += [Fault(name, why, hint) for why, hint in _faults(data, found[name])]
    return found, faults


def _faults(data: Data, there: There) -> Iterator[tuple[str, str]]:
    """Yield why a data set cannot be had as the experiment wants it, each with what to do."""
    if data.mode == "ebs" and there.lacking:
        yield there.lacking, SNAPSHOT
    if there.damage and (data.mode == "stage" or there.snapshot is None):
        yield f"{data.source} {there.damage}", MEND


def _objects(source: str, session: Session) -> tuple[int, str]:
    """Return bytes of the objects of a data set, and what is damaged of them. Raises NotFound: no use in any way."""
    name, prefix = bucket_and_prefix(source)
    bucket = Bucket(session, name)
    try:
        found = {item.key: item.size for item in bucket.list(prefix)}
    except NotFound as error:
        raise NotFound(error.message, UPLOAD) from error
    size = sum(found.values())
    if not size:
        raise NotFound(f"nothing at {source}", UPLOAD)
    if fault := dataset.cannot_hold(key.removeprefix(prefix) for key in found if not key.endswith("/")):
        raise NotFound(f"{source} {fault}", dataset.RENAME)
    if dataset.is_unfinished(prefix, found):
        raise NotFound(f"{source} was not finished (`orch dataset build` completes it)", UPLOAD)
    try:
        files = _files(bucket, prefix, found)
    except ValueError as error:
        # A node with a volume of it needs the manifest, too.
        raise NotFound(f"{source} is damaged: its {manifest.NAME} cannot be read: {error}", MEND) from error
    wrong = dataset.lost(files, prefix, found)
    return size, f"{dataset.how_damaged(files, wrong)}: {first_of(wrong, NAMED)}" if wrong else ""


def _files(bucket: Bucket, prefix: str, found: Mapping[str, int]) -> tuple[File, ...]:
    """Return the files of a manifest, none where there is none. Raises ValueError for one that cannot be read.

    What is in objects is not read: the nodes do that. Where others made the set a file of this name may be anything.
    """
    key = prefix + manifest.NAME
    if key not in found:
        return ()
    try:
        value = json.loads(bucket.get(key))
    except NoPermission:  # whoever plans may only list: the nodes will say it
        return ()
    return dataset.read_files(value["files"]) if isinstance(value, dict) and "files" in value else ()


def _lacking(source: str, version: tuple[str, str] | None, snapshot: Snapshot | None, region: str) -> str:
    """Return why a data set cannot be had as a volume, "" when it can."""
    if version is None:
        return f"only a data set of `orch dataset build` in the bucket of the runs has snapshots, {source} is none"
    if snapshot is None:
        return f"{'@'.join(version)} has no snapshot in {region}"
    if snapshot.state != "completed":
        return f"{snapshot.snapshot_id}, the snapshot of {'@'.join(version)} in {region}, is {snapshot.state}"
    return ""
