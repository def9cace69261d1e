"""What a run that ended is launched again with, where its own is gone by now: image, snapshots. Reads only.

What the launch found stands in the run for its whole life, and may have been removed, or renewed, since. What has
nothing to take its place is told before anything is launched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.aws.images import Images
from orchestrator.aws.session import Session
from orchestrator.aws.snapshots import Snapshots
from orchestrator.core.spec import RunSpec
from orchestrator.core.volumes import DataVolume, Snapshot
from orchestrator.errors import NoPermission, NotFound
from orchestrator.run.datasets import MEND
from orchestrator.run.sources import UPLOAD, There, find
from orchestrator.run.volumes import volume_of


@dataclass(frozen=True, slots=True)
class Renewed:
    """What takes the place of what is gone ("", none: nothing is gone), and what cannot be had, a line each.

    `volumes` are then all of the run.
    """

    image: str = ""
    volumes: tuple[DataVolume, ...] = ()
    faults: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what the wish to resume holds of it."""
        found: dict[str, Any] = {"image": self.image} if self.image else {}
        return found | ({"volumes": [volume.to_json() for volume in self.volumes]} if self.volumes else {})

    def notes(self, spec: RunSpec) -> list[str]:
        """Return a line for each thing that is another one than `spec` has."""
        named = spec.experiment.resources.image
        known = f", the newest {named}" if named else ""
        lines = [f"image {spec.image} is gone: the nodes boot {self.image}{known}"] if self.image else []
        pairs = zip(spec.volumes, self.volumes, strict=False)
        return lines + [
            f"data {old.data}: {old.snapshot} is gone: the volumes are made of {new.snapshot}, the same data"
            for old, new in pairs
            if old != new
        ]


def renew(spec: RunSpec, session: Session, default_image: str | None) -> Renewed:
    """Return what a run is to be launched again with; `default_image` is that of experiments that name none.

    Raises NoPermission for the image, of which the scheduler asks too, and Unreachable.
    """
    image, lacking = _image(spec, session, default_image)
    # A snapshot that is gone is a matter of the volumes, told below.
    data = {
        name: item.model_copy(update={"mode": "auto"}) if item.mode == "ebs" else item
        for name, item in spec.experiment.data.items()
    }
    try:
        published = Snapshots(session).published() if spec.volumes else ()
        there, faults = find(spec.experiment.model_copy(update={"data": data}), session, spec.bucket, published)
        volumes, lost = _volumes(spec, there, published)
    except NoPermission:  # whoever resumes may see less than who launched
        return Renewed(image, faults=tuple(lacking))
    gone = [f"data.{name}: {why} ({_remedy(hint, there[name])})" for name, why, hint in faults]
    return Renewed(image, volumes if volumes != spec.volumes else (), (*lacking, *lost, *gone))


def _remedy(hint: str, there: There) -> str:
    """Return what to do about data of a run, whose source stays what it was."""
    if hint != UPLOAD:
        return hint
    return MEND if there.version is not None else "put it back"


def _image(spec: RunSpec, session: Session, default: str | None) -> tuple[str, list[str]]:
    """Return the image that takes the place of one that is gone, and why there is none."""
    images = Images(session)
    try:
        images.root_device(spec.image)
    except NotFound as error:
        named = spec.experiment.resources.image or default or spec.image
        if named == spec.image:
            return "", [f"resources.image: {error.message}, which the run was launched with"]
        try:
            return images.resolve(named), []
        except NotFound as other:
            return "", [f"resources.image: {spec.image} is gone, and {other.message} (make one, then resume)"]
    return "", []


def _volumes(
    spec: RunSpec, there: Mapping[str, There], published: Sequence[Snapshot]
) -> tuple[tuple[DataVolume, ...], list[str]]:
    """Return the volumes of a run, of other snapshots of the same data where theirs are gone, and what has none."""
    usable = {item.snapshot_id for item in published if item.state == "completed"}
    volumes: list[DataVolume] = []
    faults: list[str] = []
    for volume in spec.volumes:
        found = there[volume.data]
        if volume.snapshot in usable:
            volumes.append(volume)
        elif found.snapshot is not None:
            volumes.append(volume_of(volume.data, found.snapshot))
        else:
            what = "@".join(found.version or (volume.data,))
            faults.append(
                f"data.{volume.data}: {volume.snapshot} is gone, and {found.lacking}"
                f" (`orch dataset snapshot {what}` makes one)"
            )
    return (tuple(volumes) if not faults else spec.volumes), faults
