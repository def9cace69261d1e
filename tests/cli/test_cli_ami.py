"""`orch ami list` and `rm` against EC2 of the sandbox: what there is, and who keeps it from being removed."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.core.ids import TAG_IMAGE, TAG_RECIPE, TAG_RUN
from orchestrator.sandbox.catalogue import SANDBOX_AMI
from tests.cli.fake_clouds import Orch
from tests.sandbox.cloud_fixture import World, shared_world

__all__ = ["shared_world"]
BUILD, USER = "ami-tiny-20261120-120000-abcd", "job-20261120-130000-efgh"


def machine(world: World, image: str, run: str) -> str:
    """Launch a machine of a run and wait until it runs."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": TAG_RUN, "Value": run}]}]
    made = world.ec2.run_instances(
        ImageId=image, InstanceType="m5.large", MinCount=1, MaxCount=1, TagSpecifications=tags
    )
    instance = str(made["Instances"][0]["InstanceId"])
    until(lambda: state(world, instance) == "running")
    return instance


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def state(world: World, instance: str) -> str:
    found = world.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return str(found["State"]["Name"])


def test_images_have_a_header_and_one_in_use_names_the_run(sandboxed: Orch, shared_world: World) -> None:
    ec2 = shared_world.ec2
    labels = {TAG_RUN: BUILD, TAG_IMAGE: "tiny", TAG_RECIPE: "d1"}
    tags = [{"Key": key, "Value": value} for key, value in labels.items()]
    specifications = [{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")]
    builder = machine(shared_world, SANDBOX_AMI, BUILD)
    image = ec2.create_image(InstanceId=builder, Name=f"orch-{BUILD}", TagSpecifications=specifications)["ImageId"]
    until(lambda: ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available")
    user = machine(shared_world, image, USER)
    head, row = sandboxed("ami", "list", "--cloud", "sandbox").stdout.splitlines()
    assert head.split() == ["NAME", "IMAGE", "RECIPE", "AGE", "SIZE", "COST", "CLOUD"]
    assert (row.split()[:3], head.index("IMAGE")) == (["tiny", image, "d1"], row.index(image))
    refused = sandboxed("ami", "rm", "tiny", "-y", "--cloud", "sandbox")
    assert (refused.exit_code, f"{image} is in use by {USER} ({user}): " in refused.stderr) == (2, True)
    ec2.terminate_instances(InstanceIds=[builder, user])
    until(lambda: state(shared_world, user) == "terminated")
    assert sandboxed("ami", "rm", "tiny", "-y", "--cloud", "sandbox").exit_code == 0
