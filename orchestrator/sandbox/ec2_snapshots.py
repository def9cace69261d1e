"""Snapshots of the volumes that machines have beside their root, and what is asked of volumes in a launch.

Moto's snapshots are names without content. Here one of a machine's data disk is what `Hosts.snapshot` keeps of it; one
of a volume that no machine has is empty, as such a volume is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.elastic_block_store import Snapshot

from orchestrator.sandbox.ec2_backend import SandboxEC2Backend
from orchestrator.sandbox.ec2_base import EC2Operations
from orchestrator.sandbox.wire import Refused

# gp3, in MiB/s and operations a second; VolumeInitializationRate in MiB/s (API reference of EC2, EbsBlockDevice).
THROUGHPUT, IOPS, RATE = (125, 2000), (3000, 80_000), (100, 300)
IOPS_PER_GIB = 500


class SnapshotOperations(EC2Operations):
    """CreateSnapshot and DeleteSnapshot."""

    def create_snapshot(self) -> ActionResult:
        """Make a snapshot of a volume; one of a machine's data disk is pending until its files have been copied."""
        world = self.world
        volume = world.get_volume(str(self.param("VolumeId", "")))
        tags = self._parse_tag_specification().get("snapshot", {})
        self.error_on_dryrun()
        snapshot = world.create_snapshot(volume.id, str(self.param("Description", "")))
        world.tags[snapshot.id].update(tags)
        held = volume.attachment
        if held is not None and held.device != held.instance.root_device_name:
            snapshot.status = "pending"
            world.lifecycle.snapshot(held.instance, volume.id, snapshot.id, partial(self._settle_snapshot, snapshot))
        return ActionResult(snapshot)

    def _settle_snapshot(self, snapshot: Snapshot, taken: bool) -> bool:
        """Give a snapshot the state it has come to; False when it was deleted meanwhile."""
        snapshot.status = "completed" if taken else "error"
        return snapshot.id in self.world.snapshots

    def delete_snapshot(self) -> ActionResult:
        """DeleteSnapshot; refused while an image is made of it, and its tags go with it."""
        result: ActionResult = super().delete_snapshot()
        snapshot_id = str(self.param("SnapshotId"))
        self.world.forget_tags(snapshot_id)
        self.world.lifecycle.forget_snapshot(snapshot_id)
        return result


def check_volumes(world: SandboxEC2Backend, mappings: Iterable[Mapping[str, Any]]) -> None:
    """Raise Refused for volumes that EC2 would not make: of what is no snapshot (yet), too small, or out of range."""
    for asked in (mapping.get("Ebs") or {} for mapping in mappings):
        _check_snapshot(world, asked)
        bounds = {"VolumeInitializationRate": RATE}
        if asked.get("VolumeType", "gp3") == "gp3":
            bounds |= {"Throughput": THROUGHPUT, "Iops": IOPS}
        for name, (least, most) in bounds.items():
            value = asked.get(name)
            if value is not None and not least <= int(value) <= most:
                raise Refused("InvalidParameterValue", f"{name} {value} is not between {least} and {most}")
        if int(asked.get("Throughput") or 0) * 4 > int(asked.get("Iops") or IOPS[0]):
            message = "Throughput (MiBps) to iops ratio is too high; the maximum is 0.25 MiBps per iops"
            raise Refused("InvalidParameterCombination", message)
        size = int(asked.get("VolumeSize") or 0)
        if size and int(asked.get("Iops") or 0) > max(IOPS[0], IOPS_PER_GIB * size):
            message = f"Iops to volume size ratio is too high; the maximum is {IOPS_PER_GIB}"
            raise Refused("InvalidParameterCombination", message)


def _check_snapshot(world: SandboxEC2Backend, asked: Mapping[str, Any]) -> None:
    snapshot_id = asked.get("SnapshotId")
    if not snapshot_id:
        if asked.get("VolumeInitializationRate"):
            message = "VolumeInitializationRate is supported only for volumes created from snapshots"
            raise Refused("InvalidParameterCombination", message)
        return
    snapshot = world.snapshots.get(snapshot_id)
    if snapshot is None:
        raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    if snapshot.status != "completed":
        raise Refused("IncorrectState", f"Snapshot is in invalid state - {snapshot.status}")
    size = asked.get("VolumeSize")
    if size is not None and int(size) < snapshot.volume_size:
        message = f"Volume of size {size}GB is smaller than snapshot '{snapshot_id}'"
        raise Refused("InvalidBlockDeviceMapping", f"{message}, expect size >= {snapshot.volume_size}GB")
