from __future__ import annotations

from typing import Any

import pytest

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.session import Session
from orchestrator.core.facts import Resource
from orchestrator.errors import NoPermission
from tests.aws.aws_wire import Form, Reply, Wire, ec2_reply

RUN = "imagenet18-20261120-203601-ab12"
NAME = f"orch-{RUN}"
TAGS = {"orch:run": RUN, "Name": NAME}
SSH = 2222
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKzWpwZ1Nq7QmXrKkJ1Y0wq4D3u3r0w4CkXJd0l8oT2m orch"


@pytest.fixture(autouse=True)
def placement_groups(wire: Wire) -> dict[str, str]:
    """Placement groups by name with their run, which moto has none of."""
    held: dict[str, str] = {}

    def create(form: Form) -> Reply:
        held[form["GroupName"]] = form["TagSpecification.1.Tag.2.Value"]
        return ec2_reply("CreatePlacementGroup", "<return>true</return>")

    def describe(form: Form) -> Reply:
        items = "".join(
            f"<item><groupName>{name}</groupName><strategy>cluster</strategy><state>available</state>"
            f"<tagSet><item><key>orch:run</key><value>{run}</value></item></tagSet></item>"
            for name, run in held.items()
            if form["Filter.1.Name"] == "tag-key" or form["Filter.1.Value.1"] == run
        )
        return ec2_reply("DescribePlacementGroups", f"<placementGroupSet>{items}</placementGroupSet>")

    def delete(form: Form) -> Reply:
        del held[form["GroupName"]]
        return ec2_reply("DeletePlacementGroup", "<return>true</return>")

    wire.answer("CreatePlacementGroup", create)
    wire.answer("DescribePlacementGroups", describe)
    wire.answer("DeletePlacementGroup", delete)
    return held


def ingress(session: Session, group: str) -> list[tuple[Any, ...]]:
    return rules(session, group, "IpPermissions")


def egress(session: Session, group: str) -> list[tuple[Any, ...]]:
    return rules(session, group, "IpPermissionsEgress")


def rules(session: Session, group: str, direction: str) -> list[tuple[Any, ...]]:
    found = session.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0][direction]
    return sorted(
        (item["IpProtocol"], item.get("FromPort", -1), source.get("CidrIp") or source.get("GroupId"))
        for item in found
        for source in item["IpRanges"] + item["UserIdGroupPairs"]
    )


def test_a_new_security_group_is_open_to_one_address_and_to_itself(session: Session) -> None:
    compute = Compute(session)
    group = compute.create_security_group(NAME, compute.default_vpc(), "203.0.113.7/32", SSH, TAGS)
    assert ingress(session, group) == [("-1", -1, group), ("tcp", SSH, "203.0.113.7/32")]


def test_with_efa_a_group_lets_everything_out_to_itself_by_name_too(session: Session, wire: Wire) -> None:
    compute = Compute(session)
    vpc = compute.default_vpc()
    group = compute.create_security_group(NAME, vpc, "203.0.113.7/32", SSH, TAGS)
    assert [rule for rule in egress(session, group) if rule[2] == group] == []
    for _ in range(2):
        assert compute.create_security_group(NAME, vpc, "203.0.113.7/32", SSH, TAGS, efa=True) == group
    assert ("-1", -1, group) in egress(session, group)
    assert ("-1", -1, "0.0.0.0/0") in egress(session, group)
    assert wire.count("AuthorizeSecurityGroupEgress") == 1


def test_a_group_found_is_mended_and_keeps_its_id(session: Session) -> None:
    compute = Compute(session)
    vpc = compute.default_vpc()
    group = compute.create_security_group(NAME, vpc, "203.0.113.7/32", SSH, TAGS)
    client = session.client("ec2")
    world = [{"IpProtocol": "tcp", "FromPort": SSH, "ToPort": SSH, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    other = [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "198.51.100.1/32"}]}]
    client.authorize_security_group_ingress(GroupId=group, IpPermissions=world + other)
    client.revoke_security_group_ingress(
        GroupId=group, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    )
    assert compute.create_security_group(NAME, vpc, "203.0.113.8/32", SSH, TAGS) == group
    assert ingress(session, group) == [
        ("-1", -1, group),
        ("tcp", SSH, "203.0.113.7/32"),
        ("tcp", SSH, "203.0.113.8/32"),
    ]


def test_a_group_as_it_should_be_is_left_alone(session: Session, wire: Wire) -> None:
    compute = Compute(session)
    vpc = compute.default_vpc()
    group = compute.create_security_group(NAME, vpc, "203.0.113.7/32", SSH, TAGS)
    wire.calls.clear()
    assert compute.create_security_group(NAME, vpc, "203.0.113.7/32", SSH, TAGS) == group
    assert wire.calls == ["DescribeSecurityGroups"]


def test_a_group_is_opened_to_one_more_address_and_stays_open_to_it(session: Session, wire: Wire) -> None:
    compute = Compute(session)
    vpc = compute.default_vpc()
    compute.open_ssh(NAME, vpc, "198.51.100.9/32", SSH)
    assert wire.calls[-1] == "DescribeSecurityGroups", "there is none"
    group = compute.create_security_group(NAME, vpc, "203.0.113.7/32", SSH, TAGS)
    for _ in range(2):
        compute.open_ssh(NAME, vpc, "198.51.100.9/32", SSH)
    assert compute.create_security_group(NAME, vpc, "203.0.113.7/32", SSH, TAGS) == group
    (shown,) = session.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"]
    (ssh,) = (item for item in shown["IpPermissions"] if item["IpProtocol"] == "tcp")
    assert [item["CidrIp"] for item in ssh["IpRanges"]] == ["203.0.113.7/32", "198.51.100.9/32"]
    assert (ssh["FromPort"], ssh["ToPort"]) == (SSH, SSH)


def test_a_rule_that_somebody_else_added_meanwhile_is_done(session: Session, wire: Wire) -> None:
    compute = Compute(session)
    wire.fail("AuthorizeSecurityGroupIngress", "InvalidPermission.Duplicate", times=2)
    assert compute.create_security_group(NAME, compute.default_vpc(), "203.0.113.7/32", SSH, TAGS).startswith("sg-")


def test_everything_made_is_tagged_at_creation_found_by_its_run_and_deleted(
    session: Session, wire: Wire, placement_groups: dict[str, str]
) -> None:
    compute = Compute(session)
    group = compute.create_security_group(NAME, compute.default_vpc(), "203.0.113.7/32", SSH, TAGS)
    compute.create_placement_group(NAME, TAGS)
    public = PUBLIC
    compute.import_key_pair(NAME, public, TAGS)
    volume = loose_volume(session)
    assert wire.count("CreateTags") == 0
    wanted = {
        Resource("security-group", group, RUN),
        Resource("placement-group", NAME, RUN),
        Resource("key-pair", NAME, RUN),
        Resource("volume", volume, RUN),
    }
    assert set(compute.resources(RUN)) == wanted
    assert set(compute.resources(None)) == wanted
    assert compute.resources("nobody-20261120-203601-zz99") == ()
    for item in wanted:
        assert compute.delete(item)
    assert compute.resources(None) == ()
    assert placement_groups == {}


def loose_volume(session: Session) -> str:
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "orch:run", "Value": RUN}]}]
    made = session.client("ec2").create_volume(AvailabilityZone="us-east-1a", Size=1, TagSpecifications=tags)
    return str(made["VolumeId"])


@pytest.mark.parametrize(
    ("resource", "action", "code"),
    [
        (Resource("security-group", "sg-0123456789abcdef0"), "DeleteSecurityGroup", "InvalidGroup.NotFound"),
        (Resource("placement-group", NAME), "DeletePlacementGroup", "InvalidPlacementGroup.Unknown"),
        (Resource("key-pair", NAME), "DeleteKeyPair", "InvalidKeyPair.NotFound"),
        (Resource("volume", "vol-0123456789abcdef0"), "DeleteVolume", "InvalidVolume.NotFound"),
    ],
)
def test_deleting_what_is_gone_is_done(
    session: Session, wire: Wire, resource: Resource, action: str, code: str
) -> None:
    wire.fail(action, code)
    assert Compute(session).delete(resource)


@pytest.mark.parametrize(
    ("resource", "action", "code"),
    [
        (Resource("security-group", "sg-1"), "DeleteSecurityGroup", "DependencyViolation"),
        (Resource("placement-group", NAME), "DeletePlacementGroup", "InvalidPlacementGroup.InUse"),
        (Resource("volume", "vol-1"), "DeleteVolume", "VolumeInUse"),
    ],
)
def test_deleting_what_is_still_used_is_not_yet(
    session: Session, wire: Wire, resource: Resource, action: str, code: str
) -> None:
    wire.fail(action, code)
    assert not Compute(session).delete(resource)


def test_a_deletion_that_is_not_allowed_is_neither(session: Session, wire: Wire) -> None:
    wire.fail("DeleteSecurityGroup", "UnauthorizedOperation", status=403)
    with pytest.raises(NoPermission, match="ec2:DeleteSecurityGroup"):
        Compute(session).delete(Resource("security-group", "sg-1"))


def test_a_key_pair_that_is_there_stays(session: Session) -> None:
    compute = Compute(session)
    public = PUBLIC
    compute.import_key_pair(NAME, public, TAGS)
    compute.import_key_pair(NAME, public, TAGS)
    assert [item.kind for item in compute.resources(RUN)] == ["key-pair"]


def test_an_image_and_its_snapshot_are_left_over_until_they_are_deleted_in_that_order(session: Session) -> None:
    ec2, compute = session.client("ec2"), Compute(session)
    known = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    made = ec2.run_instances(ImageId=known, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    tags = [{"Key": "orch:run", "Value": RUN}]
    image = ec2.create_image(InstanceId=made, Name="orch-image")["ImageId"]
    other = ec2.create_image(InstanceId=made, Name="not-orchs")["ImageId"]
    disk = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    ec2.create_tags(Resources=[image, disk], Tags=tags)
    assert set(compute.leftovers()) == {Resource("image", image, RUN), Resource("snapshot", disk, RUN)}
    assert compute.delete(Resource("image", image, RUN))
    assert compute.delete(Resource("snapshot", disk, RUN))
    assert compute.leftovers() == ()
    assert [item["ImageId"] for item in ec2.describe_images(Owners=["self"])["Images"]] == [other]


@pytest.mark.parametrize(
    ("resource", "action", "code", "gone"),
    [
        (Resource("snapshot", "snap-1"), "DeleteSnapshot", "InvalidSnapshot.NotFound", True),
        (Resource("snapshot", "snap-1"), "DeleteSnapshot", "InvalidSnapshot.InUse", False),
        (Resource("image", "ami-1"), "DeregisterImage", "InvalidAMIID.Unavailable", True),
        (
            Resource("spot-request", "sir-1"),
            "CancelSpotInstanceRequests",
            "InvalidSpotInstanceRequestID.NotFound",
            True,
        ),
    ],
)
def test_what_a_deletion_is_answered_with_says_whether_it_is_gone(  # noqa: PLR0917 - the columns of the table
    session: Session, wire: Wire, resource: Resource, action: str, code: str, gone: bool
) -> None:
    wire.fail(action, code)
    assert Compute(session).delete(resource) is gone
