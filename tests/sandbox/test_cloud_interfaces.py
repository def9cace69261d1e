"""EFA interfaces of the sandbox's instances: made, shown and refused as EC2 does; no host has the fabric."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.cloud_fixture import World, refusal, shared_world, world

__all__ = ["shared_world", "world"]

TAGS = [{"Key": "orch:run", "Value": "run-1"}]


def cards(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Return EFA interfaces as production asks for them."""
    subnet = {"SubnetId": changes.pop("subnet")} if "subnet" in changes else {}
    first = {"NetworkCardIndex": 0, "DeviceIndex": 0, "InterfaceType": "efa", "DeleteOnTermination": True}
    others = [{"NetworkCardIndex": i, "DeviceIndex": 1, "InterfaceType": "efa-only"} for i in range(1, count)]
    return [card | subnet | changes for card in (first, *others)]


def test_efa_interfaces_have_one_address_among_them_and_go_with_their_instance(world: World) -> None:
    subnets = world.ec2.describe_subnets()["Subnets"]
    subnet = next(s["SubnetId"] for s in subnets if s["AvailabilityZone"] == "us-east-1b")
    tags = [{"ResourceType": "network-interface", "Tags": TAGS}]
    group = world.ec2.create_security_group(GroupName="fabric", Description="d")["GroupId"]
    asked = cards(4, subnet=subnet, Groups=[group])
    (instance_id,) = world.run(1, InstanceType="p4d.24xlarge", NetworkInterfaces=asked, TagSpecifications=tags)
    shown = world.instance(instance_id)
    found = [
        (
            i["InterfaceType"],
            i["Attachment"]["NetworkCardIndex"],
            i["Attachment"]["DeviceIndex"],
            i.get("PrivateIpAddress"),
        )
        for i in shown["NetworkInterfaces"]
    ]
    address = shown["PrivateIpAddress"]
    assert found == [("efa", 0, 0, address), *(("efa-only", card, 1, None) for card in (1, 2, 3))]
    assert "PublicIpAddress" not in shown
    mine = [{"Name": "tag:orch:run", "Values": ["run-1"]}]
    assert len(world.ec2.describe_network_interfaces(Filters=mine)["NetworkInterfaces"]) == 4
    (alone,) = world.run(1, InstanceType="p4d.24xlarge", NetworkInterfaces=cards(1, subnet=subnet, Groups=[group]))
    assert world.instance(alone)["PublicIpAddress"]
    assert refusal(lambda: world.ec2.delete_security_group(GroupId=group))[0] == "DependencyViolation"
    world.end()
    assert world.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    world.ec2.delete_security_group(GroupId=group)


@pytest.mark.parametrize(
    ("instance_type", "interfaces", "code"),
    [
        ("m5.large", cards(1), "InvalidParameterCombination"),
        ("p3dn.24xlarge", cards(2), "InvalidParameterValue"),
        ("p4d.24xlarge", cards(2, AssociatePublicIpAddress=True), "InvalidParameterCombination"),
        ("p4d.24xlarge", cards(2)[1:], "InvalidParameterValue"),
        ("p4d.24xlarge", cards(1, InterfaceType="efa-only"), "InvalidParameterCombination"),
    ],
)
def test_efa_interfaces_that_a_type_cannot_have_are_refused(
    world: World, instance_type: str, interfaces: list[dict[str, Any]], code: str
) -> None:
    asked = {"InstanceType": instance_type, "NetworkInterfaces": interfaces}
    assert refusal(lambda: world.run(1, **asked))[0] == code
