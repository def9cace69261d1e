"""What a run that ended is launched again with, where its own is gone by now: image, snapshots. Reads only.

What the launch found stands in the run for its whole life, and may have been removed, or renewed, since. What has
nothing to take its place is told before anything is launched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.aws.images import Images
from orchestrator.aws.session import Session
from orchestrator.aws.snapshots import Snapshots
from orchestrator.core.dataset import named_by
from orchestrator.core.spec import RunSpec
from orchestrator.core.volumes import DataVolume, Snapshot, newest
from orchestrator.errors import NotFound
from orchestrator.run.volumes import MEND, look, volume_of


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

    Raises NoPermission, Unreachable.
    """
    image, why = _image(spec, session, default_image)
    volumes, lost = _volumes(spec, Snapshots(session).published() if spec.volumes else (), session.region)
    fetched = {name: data for name, data in spec.experiment.data.items() if data.mode != "ebs"}
    _, missing, damaged = look(spec.experiment.model_copy(update={"data": fetched}), session)
    ours = {name for name, data in fetched.items() if named_by(data.source, spec.bucket)}
    gone = [
        f"data.{name}: {fault} ({MEND if name in ours else 'put it back'})"
        for name, fault in {**missing, **damaged}.items()
    ]
    return Renewed(image, volumes if volumes != spec.volumes else (), (*why, *lost, *gone))


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


def _volumes(spec: RunSpec, published: Sequence[Snapshot], region: str) -> tuple[tuple[DataVolume, ...], list[str]]:
    """Return the volumes of a run, of other snapshots of the same data where theirs are gone, and what has none."""
    there = {item.snapshot_id for item in published if item.state == "completed"}
    volumes: list[DataVolume] = []
    faults: list[str] = []
    for volume in spec.volumes:
        named = named_by(spec.experiment.data[volume.data].source, spec.bucket)
        other = None if named is None else newest(published, *named)
        if volume.snapshot in there:
            volumes.append(volume)
        elif named is None or other is None or other.state != "completed":
            what = "@".join(named) if named is not None else volume.data
            faults.append(
                f"data.{volume.data}: {volume.snapshot} is gone, and {what} has no other snapshot in {region}"
                f" (`orch dataset snapshot {what}` makes one)"
            )
        else:
            volumes.append(volume_of(volume.data, other))
    return (tuple(volumes) if not faults else spec.volumes), faults
