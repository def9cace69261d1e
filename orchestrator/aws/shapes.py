"""EC2's replies as `core.facts`, and our tags and filters as EC2 wants them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from orchestrator.core.facts import USABLE, Instance, State, Volume
from orchestrator.core.ids import (
    TAG_BYTES,
    TAG_DATASET,
    TAG_GENERATION,
    TAG_IMAGE,
    TAG_RECIPE,
    TAG_RUN,
    TAG_TOKEN,
    TAG_VERSION,
)
from orchestrator.core.images import Image
from orchestrator.core.units import parse_time
from orchestrator.core.volumes import Snapshot

_TRANSITION = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


def parse_instance(raw: Mapping[str, Any], volumes: Iterable[Volume] = ()) -> Instance:
    """Return an entry of `Reservations[].Instances[]`.

    `end_time` is the time in `StateTransitionReason`, for an instance that is going or gone; None where EC2 gives none.
    """
    tags = tags_of(raw)
    state = cast(State, raw["State"]["Name"])
    ended = state not in USABLE
    return Instance(
        instance_id=raw["InstanceId"],
        instance_type=raw["InstanceType"],
        zone=raw["Placement"]["AvailabilityZone"],
        lifecycle="spot" if raw.get("InstanceLifecycle") == "spot" else "on-demand",
        state=state,
        launch_time=raw["LaunchTime"].astimezone(UTC),
        end_time=transition_time(raw.get("StateTransitionReason", "")) if ended else None,
        end_reason=raw.get("StateReason", {}).get("Code") or None if ended else None,
        private_ip=raw.get("PrivateIpAddress") or None,
        public_ip=raw.get("PublicIpAddress") or None,
        generation=int(tags.get(TAG_GENERATION, "1")),
        launch_index=int(raw.get("AmiLaunchIndex", 0)),
        token=tags.get(TAG_TOKEN) or raw.get("ClientToken", ""),
        volumes=tuple(volumes),
    )


def transition_time(reason: str) -> datetime | None:
    """Return the time in a `StateTransitionReason` such as `User initiated (2026-11-20 20:36:01 GMT)`."""
    found = _TRANSITION.search(reason)
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) if found else None


def parse_volume(raw: Mapping[str, Any]) -> Volume:
    """Return an entry of `Volumes[]`."""
    provisioned = (int(raw.get(name) or 0) for name in ("Iops", "Throughput", "VolumeInitializationRate"))
    return Volume(raw["VolumeId"], int(raw["Size"]), raw["VolumeType"], *provisioned)


def volume_ids(raw: Mapping[str, Any]) -> list[str]:
    """Return the ids of the EBS volumes an instance shows."""
    return [item["Ebs"]["VolumeId"] for item in raw.get("BlockDeviceMappings", []) if "VolumeId" in item.get("Ebs", {})]


def snapshots_of(raw: Mapping[str, Any]) -> list[str]:
    """Return the ids of the snapshots that an image shows; while it is being made they may be missing."""
    devices = [item.get("Ebs", {}) for item in raw.get("BlockDeviceMappings", [])]
    return [device["SnapshotId"] for device in devices if device.get("SnapshotId")]


def parse_image(raw: Mapping[str, Any]) -> Image:
    """Return an entry of `Images[]`; its size is that of all its volumes, GiB."""
    tags = tags_of(raw)
    return Image(
        image_id=raw["ImageId"],
        name=tags.get(TAG_IMAGE, ""),
        digest=tags.get(TAG_RECIPE, ""),
        state=raw.get("State", "available"),
        created=parse_time(raw["CreationDate"]),
        snapshots=tuple(snapshots_of(raw)),
        size_gib=sum(int(item.get("Ebs", {}).get("VolumeSize", 0)) for item in raw.get("BlockDeviceMappings", [])),
        run=tags.get(TAG_RUN, ""),
    )


def parse_snapshot(raw: Mapping[str, Any]) -> Snapshot:
    """Return an entry of `Snapshots[]` that holds a data set, published or not."""
    tags = tags_of(raw)
    return Snapshot(
        snapshot_id=raw["SnapshotId"],
        name=tags.get(TAG_DATASET, ""),
        version=tags.get(TAG_VERSION, ""),
        state=raw["State"],
        created=raw["StartTime"].astimezone(UTC),
        size_gib=int(raw["VolumeSize"]),
        bytes=int(tags.get(TAG_BYTES, "0")),
        run=tags.get(TAG_RUN, ""),
    )


def tags_of(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of any resource that EC2 describes."""
    return {item["Key"]: item["Value"] for item in raw.get("Tags", [])}


def tag_specification(kind: str, tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the `TagSpecifications` that tag a resource as it is created."""
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": tags[key]} for key in sorted(tags)]}]


def run_filter(run: str | None) -> list[dict[str, Any]]:
    """Return the filter for what carries the tag of `run`, or of any run."""
    if run is None:
        return [{"Name": "tag-key", "Values": [TAG_RUN]}]
    return [{"Name": f"tag:{TAG_RUN}", "Values": [run]}]


def filters(**values: str | Sequence[str]) -> list[dict[str, Any]]:
    """Return filters by name, with `_` for `-`: `filters(vpc_id="vpc-1")`."""
    return [
        {"Name": name.replace("_", "-"), "Values": [value] if isinstance(value, str) else list(value)}
        for name, value in values.items()
    ]
