"""Conformance: snapshots of data disks behave as on AWS, and so do launches that ask for volumes made of them."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.sandbox.boundary import Disk
from tests.sandbox.cloud_fixture import World, refusal, shared_world, until, world

__all__ = ["shared_world", "world"]
DEVICE = "/dev/sdf"


def launch(world: World, **ebs: Any) -> tuple[str, dict[str, Any]]:
    """Launch a machine with a data disk; return its id and the disk as EC2 describes it."""
    asked = {"VolumeSize": 5, "VolumeType": "gp3", "DeleteOnTermination": True} | ebs
    (instance,) = world.run(1, BlockDeviceMappings=[{"DeviceName": DEVICE, "Ebs": asked}])
    world.wait([instance], "running")
    wanted = {"attachment.instance-id": instance, "attachment.device": DEVICE}
    filters = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
    (volume,) = world.ec2.describe_volumes(Filters=filters)["Volumes"]
    return instance, volume


def state(world: World, snapshot: str) -> str:
    return str(world.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"])


def taken(world: World, volume: str) -> str:
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "orch:run", "Value": "r"}]}]
    return str(world.ec2.create_snapshot(VolumeId=volume, TagSpecifications=tags)["SnapshotId"])


def test_a_snapshot_of_a_data_disk_is_pending_until_its_files_are_kept_and_machines_get_disks_of_it(
    world: World,
) -> None:
    instance, volume = launch(world)
    assert world.hosts.booted[instance].disks == (Disk(volume["VolumeId"], 5, ""),)
    with world.held():
        snapshot = taken(world, volume["VolumeId"])
        assert state(world, snapshot) == "pending"
        assert refusal(lambda: launch(world, SnapshotId=snapshot))[0] == "IncorrectState"
    until(lambda: state(world, snapshot) == "completed")
    assert world.hosts.snapshots[snapshot] == (instance, volume["VolumeId"])
    other, made = launch(world, SnapshotId=snapshot, VolumeInitializationRate=250, Throughput=300, Iops=3000)
    assert world.hosts.booted[other].disks == (Disk(made["VolumeId"], 5, snapshot),)
    assert (made["SnapshotId"], made["VolumeInitializationRate"], made["Throughput"]) == (snapshot, 250, 300)
    world.ec2.terminate_instances(InstanceIds=[other])
    world.wait([other], "terminated")
    gone = refusal(lambda: world.ec2.describe_volumes(VolumeIds=[made["VolumeId"]]))
    assert gone[0] == "InvalidVolume.NotFound"
    world.ec2.delete_snapshot(SnapshotId=snapshot)
    until(lambda: snapshot not in world.hosts.snapshots)
    assert world.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [snapshot]}])["Tags"] == []


def test_one_that_cannot_be_kept_has_failed_and_one_deleted_meanwhile_leaves_no_files(world: World) -> None:
    _, volume = launch(world)
    given_up = taken(world, volume["VolumeId"])
    world.ec2.delete_snapshot(SnapshotId=given_up)
    until(lambda: given_up in world.hosts.copied)
    world.hosts.broken = True
    failed = taken(world, volume["VolumeId"])
    until(lambda: state(world, failed) == "error")
    assert not {given_up, failed} & world.hosts.snapshots.keys()


@pytest.mark.parametrize(
    ("ebs", "code"),
    [
        ({"SnapshotId": "snap-0123456789abcdef0"}, "InvalidSnapshot.NotFound"),
        ({"VolumeInitializationRate": 200}, "InvalidParameterCombination"),
        ({"Throughput": 100}, "InvalidParameterValue"),
        ({"Throughput": 2001, "Iops": 80_000}, "InvalidParameterValue"),
        ({"Throughput": 1000, "Iops": 3000}, "InvalidParameterCombination"),
        ({"VolumeSize": 5, "Throughput": 1000, "Iops": 4000}, "InvalidParameterCombination"),
        ({"SnapshotId": "own", "VolumeInitializationRate": 99}, "InvalidParameterValue"),
        ({"SnapshotId": "own", "VolumeSize": 4}, "InvalidBlockDeviceMapping"),
    ],
)
def test_a_volume_that_ec2_would_not_make_launches_nothing(world: World, ebs: dict[str, Any], code: str) -> None:
    if ebs.get("SnapshotId") == "own":
        volume = world.ec2.create_volume(AvailabilityZone="us-east-1a", Size=5)["VolumeId"]
        ebs = ebs | {"SnapshotId": taken(world, volume)}
    assert refusal(lambda: launch(world, **ebs))[0] == code
