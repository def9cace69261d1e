"""How the data sets of a run get onto its nodes: fetched from S3, or on a volume of their snapshot. Reads only.

`core.ways` compares and chooses; what cannot be had is refused here, before anything is launched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.snapshots import Snapshots
from orchestrator.core import dataset, manifest
from orchestrator.core.experiment import Data, Experiment
from orchestrator.core.plan import Plan
from orchestrator.core.units import counted, format_size
from orchestrator.core.volumes import DEVICES, DataVolume, Snapshot, newest
from orchestrator.core.ways import Choice, cheaper, ebs_way, stage_way
from orchestrator.errors import BadInput, NoPermission, NotFound

NO_SNAPSHOT = "it has no snapshot (`orch dataset snapshot` makes one)"
NAMED = 3  # files of a damaged data set that are named
MEND = "`orch dataset build` with the same source puts back what is gone of its data set"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The experiment with the mode of every data set settled, the volumes that takes, and what was compared."""

    experiment: Experiment
    volumes: tuple[DataVolume, ...]
    choices: tuple[Choice, ...]


def sizes_of(experiment: Experiment, session: Session) -> dict[str, int]:
    """Return the bytes of each data set. Raises NotFound with all that are not there or not whole by their manifest."""
    sizes: dict[str, int] = {}
    faults: list[str] = []
    damaged: list[str] = []
    for name, data in experiment.data.items():
        bucket, _, prefix = data.source.removeprefix("s3://").partition("/")
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        try:
            found = {item.key: item.size for item in Bucket(session, bucket).list(prefix)}
        except NotFound as error:
            sizes[name] = 0
            faults.append(f"data.{name}: {error.message}")
            continue
        sizes[name] = sum(found.values())
        if not sizes[name]:
            faults.append(f"data.{name}: nothing at {data.source}")
        elif dataset.is_unfinished(prefix, found):
            faults.append(f"data.{name}: {data.source} was not finished (`orch dataset build` completes it)")
        elif data.mode != "ebs" and (damage := _damage(Bucket(session, bucket), prefix, found)):
            damaged.append(f"data.{name}: {data.source} {damage}")
    if faults or damaged:
        hints = (
            *(["upload the data set first, or mend data.*.source"] if faults else []),
            *([MEND] if damaged else []),
        )
        raise NotFound("; ".join(faults + damaged), "; ".join(hints))
    return sizes


def _damage(bucket: Bucket, prefix: str, found: Mapping[str, int]) -> str:
    """Return what of a data set is not as its manifest says, "" where nothing is or there is none; `found` are sizes.

    What is in objects is not read: the nodes do that. Where others made the set a file of this name may be anything.
    """
    key = prefix + manifest.NAME
    if key not in found:
        return ""
    try:
        value = json.loads(bucket.get(key))
        files = dataset.read_files(value["files"]) if isinstance(value, dict) and "files" in value else ()
    except NoPermission:  # whoever plans may only list: the nodes will say it
        return ""
    except ValueError as error:
        return f"is damaged: its {manifest.NAME} cannot be read: {error}"
    wrong = dataset.lost(files, prefix, found)
    if not wrong:
        return ""
    more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    return (
        f"is damaged: of {counted(len(files), 'file')} {len(wrong)} are gone or cut: {', '.join(wrong[:NAMED])}{more}"
    )


def check_room(experiment: Experiment, sizes: Mapping[str, int]) -> None:
    """Raise BadInput when what is fetched does not fit the disk."""
    room = experiment.resources.disk_size * 2**30
    if sum(sizes.values()) > room * 0.9:
        needed = format_size(sum(sizes.values()))
        raise BadInput(
            f"the data ({needed}) does not fit a disk of {experiment.resources.disk_size} GiB",
            "raise resources.disk_size",
        )


def choose(experiment: Experiment, session: Session, bucket: str, plan: Plan, sizes: Mapping[str, int]) -> Chosen:
    """Settle the modes. `sizes` are the bytes of each data set; `bucket` is that of the runs.

    Raises NotFound with every `mode: ebs` that has no snapshot to use in this region, BadInput for too many volumes.
    """
    versions = {name: dataset.named_by(data.source, bucket) for name, data in experiment.data.items()}
    wanted = any(version and experiment.data[name].mode != "stage" for name, version in versions.items())
    published = Snapshots(session).published() if wanted else ()
    found = {name: newest(published, *version) for name, version in versions.items() if version is not None}
    faults = [
        f"data.{name}: {why}"
        for name, data in experiment.data.items()
        if data.mode == "ebs" and (why := _missing(data, versions[name], found.get(name), session.region))
    ]
    if faults:
        raise NotFound("; ".join(faults), "`orch dataset snapshot NAME` makes one, or say mode: stage")
    settled = [
        _settle(name, data, found.get(name), experiment, plan, sizes[name]) for name, data in experiment.data.items()
    ]
    modes = {choice.data: choice.mode for choice, _ in settled}
    volumes = tuple(volume for choice, volume in settled if volume is not None and choice.mode == "ebs")
    if len(volumes) > len(DEVICES):
        raise BadInput(f"{len(volumes)} data sets would be on volumes of their own", f"at most {len(DEVICES)} can be")
    data = {name: item.model_copy(update={"mode": modes[name]}) for name, item in experiment.data.items()}
    shown = tuple(choice for choice, _ in settled if versions[choice.data] is not None)
    return Chosen(experiment.model_copy(update={"data": data}), volumes, shown)


def _missing(data: Data, version: tuple[str, str] | None, snapshot: Snapshot | None, region: str) -> str | None:
    """Return why a data set cannot be had as a volume; None when it can."""
    if version is None:
        return f"only a data set of `orch dataset build` in the bucket of the runs has snapshots, {data.source} is none"
    if snapshot is None:
        return f"{'@'.join(version)} has no snapshot in {region}"
    if snapshot.state != "completed":
        return f"{snapshot.snapshot_id}, the snapshot of {'@'.join(version)} in {region}, is {snapshot.state}"
    return None


def _settle(  # noqa: PLR0917 - all that a choice is made of
    name: str, data: Data, snapshot: Snapshot | None, experiment: Experiment, plan: Plan, size: int
) -> tuple[Choice, DataVolume | None]:
    offer, limit = plan.offers[0], experiment.max_duration
    stage = stage_way(size, offer, plan.num_nodes)
    volume = volume_of(name, snapshot) if snapshot is not None and snapshot.state == "completed" else None
    if volume is None:
        why = "as the experiment says" if data.mode == "stage" else NO_SNAPSHOT
        return Choice(name, size, "stage", why, (stage,)), None
    ways = (stage, ebs_way(volume, offer, plan.num_nodes, limit))
    mode, why = cheaper(ways) if data.mode == "auto" else (data.mode, "as the experiment says")
    return Choice(name, size, mode, why, ways), volume


def volume_of(name: str, snapshot: Snapshot) -> DataVolume:
    """Return the volume of a snapshot for the data set that the experiment calls `name`."""
    return DataVolume(name, snapshot.snapshot_id, snapshot.version, snapshot.size_gib, snapshot.bytes)
