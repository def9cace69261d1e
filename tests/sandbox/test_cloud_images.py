"""Conformance: images and snapshots of the sandbox behave as on AWS, where moto's are names without content."""

from __future__ import annotations

from typing import Any

from orchestrator.sandbox.catalogue import SANDBOX_AMI
from tests.sandbox.cloud_fixture import World, refusal, shared_world, until, world

__all__ = ["shared_world", "world"]

TAGS = [{"ResourceType": kind, "Tags": [{"Key": "orch:run", "Value": f"of-{kind}"}]} for kind in ("image", "snapshot")]


def running(world: World) -> str:
    (instance,) = world.run(
        1, BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 40, "Encrypted": True}}]
    )
    world.wait([instance], "running")
    return instance


def image(world: World, image_id: str) -> dict[str, Any]:
    found: dict[str, Any] = world.ec2.describe_images(ImageIds=[image_id])["Images"][0]
    return found


def create(world: World, instance: str, name: str, **asked: Any) -> str:
    made = str(world.ec2.create_image(InstanceId=instance, Name=name, **asked)["ImageId"])
    until(lambda: image(world, made)["State"] != "pending")
    return made


def test_an_image_is_pending_first_and_holds_the_volumes_of_its_machine_with_their_tags(world: World) -> None:
    instance = running(world)
    with world.held():
        made = world.ec2.create_image(InstanceId=instance, Name="one", TagSpecifications=TAGS)["ImageId"]
        assert image(world, made)["State"] == "pending"
        code, status, _ = refusal(lambda: world.run(1, ImageId=made))
        assert (code, status) == ("InvalidAMIID.Unavailable", 400)
    until(lambda: image(world, made)["State"] == "available")
    (device,) = image(world, made)["BlockDeviceMappings"]
    (snapshot,) = world.ec2.describe_snapshots(SnapshotIds=[device["Ebs"]["SnapshotId"]])["Snapshots"]
    assert (device["DeviceName"], device["Ebs"]["VolumeSize"], device["Ebs"]["Encrypted"]) == ("/dev/sda1", 40, True)
    assert (snapshot["State"], snapshot["VolumeSize"]) == ("completed", 40)
    assert [tag["Value"] for tag in image(world, made)["Tags"]] == ["of-image"]
    assert [tag["Value"] for tag in snapshot["Tags"]] == ["of-snapshot"]
    assert world.hosts.images[made] == (instance, True), "the machine restarts, so that its files are at rest"
    assert world.state(instance) == "running"
    create(world, instance, "live", NoReboot=True)
    assert list(world.hosts.images.values())[-1] == (instance, False)


def test_a_machine_boots_from_it_on_a_volume_that_is_large_enough(world: World) -> None:
    made = create(world, running(world), "boots")
    small = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 30}}]
    code, _, message = refusal(lambda: world.run(1, ImageId=made, BlockDeviceMappings=small))
    assert (code, message.partition(", ")[2]) == ("InvalidBlockDeviceMapping", "expect size >= 40GB")
    large = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 50}}]
    (instance,) = world.run(1, ImageId=made, BlockDeviceMappings=large)
    world.wait([instance], "running")
    assert world.hosts.booted[instance].image_id == made


def test_names_are_unique_and_what_is_no_machine_has_no_image(world: World) -> None:
    instance = running(world)
    create(world, instance, "taken")
    asked = [
        ({"InstanceId": instance, "Name": "taken"}, "InvalidAMIName.Duplicate"),
        ({"InstanceId": instance, "Name": "one#two"}, "InvalidAMIName.Malformed"),
        ({"InstanceId": "i-0123456789abcdef0", "Name": "none"}, "InvalidInstanceID.NotFound"),
    ]
    for request, wanted in asked:
        assert refusal(lambda request=request: world.ec2.create_image(**request))[0] == wanted  # type: ignore[misc]
    world.ec2.terminate_instances(InstanceIds=[instance])
    assert refusal(lambda: world.ec2.create_image(InstanceId=instance, Name="late"))[0] == "IncorrectState"
    assert refusal(lambda: world.ec2.register_image(Name="empty"))[0] == "UnsupportedOperation"


def test_a_snapshot_goes_after_its_image_and_an_image_leaves_its_snapshots(world: World) -> None:
    made = create(world, running(world), "goes", TagSpecifications=TAGS)
    snapshot = image(world, made)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert refusal(lambda: world.ec2.delete_snapshot(SnapshotId=snapshot))[0] == "InvalidSnapshot.InUse"
    world.ec2.deregister_image(ImageId=made)
    until(lambda: made not in world.hosts.images)
    assert world.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    world.ec2.delete_snapshot(SnapshotId=snapshot)
    assert refusal(lambda: world.ec2.describe_snapshots(SnapshotIds=[snapshot]))[0] == "InvalidSnapshot.NotFound"
    assert refusal(lambda: world.run(1, ImageId=made))[0] == "InvalidAMIID.NotFound"
    wanted = [{"Name": "resource-id", "Values": [made, snapshot]}]
    assert world.ec2.describe_tags(Filters=wanted)["Tags"] == []
    assert refusal(lambda: world.ec2.deregister_image(ImageId=SANDBOX_AMI))[0] == "AuthFailure"


def test_an_image_that_cannot_be_copied_has_failed_and_one_given_up_meanwhile_leaves_no_files(world: World) -> None:
    instance = running(world)
    made = str(world.ec2.create_image(InstanceId=instance, Name="given-up")["ImageId"])
    world.ec2.deregister_image(ImageId=made)
    until(lambda: made in world.hosts.copied)
    world.hosts.broken = True
    assert image(world, create(world, instance, "broken"))["State"] == "failed"
    assert made not in world.hosts.images
