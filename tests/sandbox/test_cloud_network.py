"""Conformance: placement groups, security groups and key pairs of the sandbox behave as on AWS where moto does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.sandbox.cloud_fixture import World, refusal, shared_world, world

__all__ = ["shared_world", "world"]

TAGS = [{"Key": "orch:run", "Value": "run-2"}]
MINE = [{"Name": "tag:orch:run", "Values": ["run-2"]}]


def tagged(kind: str) -> list[dict[str, object]]:
    return [{"ResourceType": kind, "Tags": TAGS}]


def test_a_placement_group_is_made_shown_by_its_tag_and_deleted(world: World) -> None:
    asked = {"GroupName": "gang", "Strategy": "cluster", "TagSpecifications": tagged("placement-group")}
    made = world.ec2.create_placement_group(**asked)["PlacementGroup"]
    (shown,) = world.ec2.describe_placement_groups(Filters=MINE)["PlacementGroups"]
    assert shown == made
    assert (shown["State"], shown["Strategy"], shown["Tags"]) == ("available", "cluster", TAGS)
    assert refusal(lambda: world.ec2.create_placement_group(**asked))[0] == "InvalidPlacementGroup.Duplicate"
    kinds = [{"Name": "resource-type", "Values": ["placement-group"]}]
    assert [t["ResourceId"] for t in world.ec2.describe_tags(Filters=kinds)["Tags"]] == [made["GroupId"]]
    world.ec2.delete_placement_group(GroupName="gang")
    assert world.ec2.describe_placement_groups(Filters=MINE)["PlacementGroups"] == []
    assert world.ec2.describe_tags(Filters=kinds)["Tags"] == []
    assert (
        refusal(lambda: world.ec2.describe_placement_groups(GroupNames=["gang"]))[0] == "InvalidPlacementGroup.Unknown"
    )


def test_a_placement_group_stays_while_a_machine_is_in_it(world: World) -> None:
    world.ec2.create_placement_group(GroupName="busy", Strategy="cluster")
    ids = world.run(2, Placement={"GroupName": "busy", "AvailabilityZone": "us-east-1c"})
    assert refusal(lambda: world.ec2.delete_placement_group(GroupName="busy"))[0] == "InvalidPlacementGroup.InUse"
    elsewhere = {"GroupName": "busy", "AvailabilityZone": "us-east-1d"}
    assert refusal(lambda: world.run(1, Placement=elsewhere))[0] == "InvalidPlacementGroup.InUse"
    world.hosts.stuck = True
    world.ec2.terminate_instances(InstanceIds=ids)
    assert refusal(lambda: world.ec2.delete_placement_group(GroupName="busy"))[0] == "InvalidPlacementGroup.InUse"
    world.hosts.stuck = False
    world.wait(ids, "terminated")
    world.ec2.delete_placement_group(GroupName="busy")


def test_a_cluster_takes_no_burstable_machines(world: World) -> None:
    world.ec2.create_placement_group(GroupName="gpus", Strategy="cluster")
    code, _, message = refusal(lambda: world.run(1, InstanceType="t3.micro", Placement={"GroupName": "gpus"}))
    assert code == "InvalidParameterCombination"
    assert "t3.micro" in message
    world.ec2.delete_placement_group(GroupName="gpus")


def test_a_group_shows_the_rule_that_lets_it_reach_itself(world: World) -> None:
    group = world.ec2.create_security_group(
        GroupName="nodes", Description="d", TagSpecifications=tagged("security-group")
    )
    group_id = group["GroupId"]
    world.ec2.authorize_security_group_ingress(
        GroupId=group_id,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.7/32"}]},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]},
        ],
    )
    (shown,) = world.ec2.describe_security_groups(Filters=MINE)["SecurityGroups"]
    rules = {rule["IpProtocol"]: rule for rule in shown["IpPermissions"]}
    assert [pair["GroupId"] for pair in rules["-1"]["UserIdGroupPairs"]] == [group_id]
    assert [r["CidrIp"] for r in rules["tcp"]["IpRanges"]] == ["192.0.2.7/32"]
    world.ec2.delete_security_group(GroupId=group_id)
    assert world.ec2.describe_security_groups(Filters=MINE)["SecurityGroups"] == []


def test_a_rule_that_is_there_already_is_a_duplicate(world: World) -> None:
    group_id = world.ec2.create_security_group(GroupName="twice", Description="d")["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.7/32"}]}
    world.ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[rule])
    again = refusal(lambda: world.ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[rule]))
    assert again[0] == "InvalidPermission.Duplicate"
    same_name = refusal(lambda: world.ec2.create_security_group(GroupName="twice", Description="d"))
    assert same_name[0] == "InvalidGroup.Duplicate"
    world.ec2.delete_security_group(GroupId=group_id)


def test_a_group_in_use_cannot_be_deleted_until_its_machines_are_gone(world: World) -> None:
    group_id = world.ec2.create_security_group(GroupName="used", Description="d")["GroupId"]
    ids = world.run(1, SecurityGroupIds=[group_id])
    assert [g["GroupId"] for g in world.instance(ids[0])["SecurityGroups"]] == [group_id]
    assert refusal(lambda: world.ec2.delete_security_group(GroupId=group_id))[0] == "DependencyViolation"
    world.hosts.stuck = True
    world.ec2.terminate_instances(InstanceIds=ids)
    assert refusal(lambda: world.ec2.delete_security_group(GroupId=group_id))[0] == "DependencyViolation"
    world.hosts.stuck = False
    world.wait(ids, "terminated")
    world.ec2.delete_security_group(GroupId=group_id)
    assert refusal(lambda: world.ec2.delete_security_group(GroupId=group_id))[0] == "InvalidGroup.NotFound"


def test_a_group_that_another_refers_to_cannot_be_deleted(world: World) -> None:
    one, two = (world.ec2.create_security_group(GroupName=n, Description="d")["GroupId"] for n in ("one", "two"))
    rule = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": one}]}
    world.ec2.authorize_security_group_ingress(GroupId=two, IpPermissions=[rule])
    assert refusal(lambda: world.ec2.delete_security_group(GroupId=one))[0] == "DependencyViolation"
    for group_id in (two, one):
        world.ec2.delete_security_group(GroupId=group_id)


@pytest.mark.parametrize("by", ["KeyName", "KeyPairId"])
def test_an_ed25519_key_is_imported_and_reaches_the_host(world: World, tmp_path: Path, by: str) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "orch", "-f", str(tmp_path / "key")], check=True
    )
    public = (tmp_path / "key.pub").read_bytes()
    asked = {"KeyName": "run-key", "PublicKeyMaterial": public, "TagSpecifications": tagged("key-pair")}
    made = world.ec2.import_key_pair(**asked)
    assert refusal(lambda: world.ec2.import_key_pair(**asked))[0] == "InvalidKeyPair.Duplicate"
    (shown,) = world.ec2.describe_key_pairs(Filters=MINE)["KeyPairs"]
    assert (shown["KeyName"], shown["KeyType"]) == ("run-key", "ed25519")
    (instance_id,) = world.run(1, KeyName="run-key")
    world.wait([instance_id], "running")
    assert world.hosts.booted[instance_id].public_key == public.decode().strip()
    world.ec2.delete_key_pair(**{by: made[by]})
    world.ec2.delete_key_pair(**{by: made[by]})
    assert world.ec2.describe_key_pairs(Filters=MINE)["KeyPairs"] == []
