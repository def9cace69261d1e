"""The EBS snapshots of data sets that `orch` makes: taken of a volume, published by tags, listed, removed.

As an image, a snapshot carries the tag of the run that built it from its first moment, and one call of CreateTags
publishes it: until then `orch gc` takes it for something left behind, and no experiment finds it. Never decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.errors import call, call_pages
from orchestrator.aws.own_images import delete_soon
from orchestrator.aws.session import Session
from orchestrator.aws.shapes import filters, parse_snapshot, run_filter, tag_specification
from orchestrator.core.facts import Resource
from orchestrator.core.ids import TAG_DATASET
from orchestrator.core.volumes import Snapshot


class Snapshots:
    """The snapshots of one region. Every method raises NoPermission or Unreachable besides what it says."""

    def __init__(self, session: Session) -> None:
        self._client = session.client("ec2")
        self._compute = Compute(session)

    def of_run(self, run: str) -> tuple[Snapshot, ...]:
        """Return the snapshots that a build has made, in whatever state, oldest first: one, unless EC2 made two."""
        return tuple(sorted(self._find(run_filter(run)), key=lambda item: (item.created, item.snapshot_id)))

    def published(self, name: str | None = None) -> tuple[Snapshot, ...]:
        """Return the published snapshots, of one data set where it is named; newest first."""
        wanted = filters(tag_key=TAG_DATASET) if name is None else [{"Name": f"tag:{TAG_DATASET}", "Values": [name]}]
        return tuple(sorted(self._find(wanted), key=lambda item: (item.created, item.snapshot_id), reverse=True))

    def users(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Return the volumes that were made of a snapshot and are there, by id."""
        wanted = filters(snapshot_id=snapshot.snapshot_id)
        pages = call_pages("ec2:DescribeVolumes", self._client, "describe_volumes", Filters=wanted)
        return tuple(raw["VolumeId"] for page in pages for raw in page["Volumes"])

    def take(self, volume_id: str, tags: Mapping[str, str]) -> str:
        """Begin a snapshot of a volume; return its id. EC2 has no token for that: asked for twice, there are two."""
        request = {
            "VolumeId": volume_id,
            "Description": tags.get("Name", ""),
            "TagSpecifications": tag_specification("snapshot", tags),
        }
        return str(call("ec2:CreateSnapshot", lambda: self._client.create_snapshot(**request))["SnapshotId"])

    def publish(self, snapshot: Snapshot, name: str) -> None:
        """Let experiments find a snapshot as that of data set `name`."""
        tags = [{"Key": TAG_DATASET, "Value": name}, {"Key": "Name", "Value": f"{name}@{snapshot.version}"}]
        call("ec2:CreateTags", lambda: self._client.create_tags(Resources=[snapshot.snapshot_id], Tags=tags))

    def remove(self, snapshot: Snapshot) -> None:
        """Remove a snapshot; volumes that were made of it stay. Raises Unreachable: still in use."""
        delete_soon(self._compute, Resource("snapshot", snapshot.snapshot_id))

    def _find(self, wanted: list[dict[str, Any]]) -> list[Snapshot]:
        pages = call_pages(
            "ec2:DescribeSnapshots", self._client, "describe_snapshots", OwnerIds=["self"], Filters=wanted
        )
        return [parse_snapshot(raw) for page in pages for raw in page["Snapshots"]]
