"""Conformance: EC2 instances of the sandbox behave as on AWS wherever moto 5.2.5 does not."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import moto
import pytest

from orchestrator.sandbox.boundary import HostSpec
from orchestrator.sandbox.catalogue import SANDBOX_AMI
from orchestrator.sandbox.lifecycle import Lifecycle
from tests.sandbox.cloud_fixture import (
    PENDING,
    SHUTTING_DOWN,
    NotingHosts,
    World,
    order,
    refusal,
    shared_world,
    until,
    world,
)

__all__ = ["shared_world", "world"]

TAGS = [{"Key": "orch:run", "Value": "run-1"}]


def test_moto_is_the_version_whose_faults_are_mended() -> None:
    assert moto.__version__ == "5.2.5"


def test_a_repeated_token_launches_nothing_and_shows_the_same_instances(world: World) -> None:
    first = world.run(3, ClientToken="token-a")
    assert world.run(3, ClientToken="token-a") == first
    assert (
        len(world.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": ["token-a"]}])["Reservations"])
        == 1
    )
    world.ec2.terminate_instances(InstanceIds=first)
    world.wait(first, "terminated")
    again = world.ec2.run_instances(**order(3, ClientToken="token-a"))["Instances"]
    assert [i["InstanceId"] for i in again] == first
    assert {i["State"]["Name"] for i in again} == {"terminated"}


def test_a_token_with_other_parameters_is_refused(world: World) -> None:
    world.run(1, ClientToken="token-b")
    code, status, _ = refusal(lambda: world.run(2, ClientToken="token-b"))
    assert (code, status) == ("IdempotentParameterMismatch", 400)


def test_a_launch_that_failed_leaves_its_token_free(world: World) -> None:
    world.cloud.add_fault("RunInstances", "InsufficientInstanceCapacity")
    assert refusal(lambda: world.run(2, ClientToken="token-c"))[:2] == ("InsufficientInstanceCapacity", 500)
    assert len(world.run(2, ClientToken="token-c")) == 2


def test_a_gang_is_numbered_and_lies_in_the_zone_of_its_subnet(world: World) -> None:
    subnets = world.ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    subnet = next(s for s in subnets if s["AvailabilityZone"] == "us-east-1d")
    launched = world.ec2.run_instances(**order(16, SubnetId=subnet["SubnetId"]))["Instances"]
    assert [i["AmiLaunchIndex"] for i in launched] == list(range(16))
    assert {i["Placement"]["AvailabilityZone"] for i in launched} == {"us-east-1d"}
    assert {i["InstanceLifecycle"] for i in launched} == {"spot"}
    assert len({i["SpotInstanceRequestId"] for i in launched}) == 16
    addresses = [ip_address(i["PrivateIpAddress"]) for i in launched]
    assert len(set(addresses)) == 16
    assert all(a in ip_network(subnet["CidrBlock"]) and a.packed[3] >= 10 for a in addresses)


def test_addresses_are_not_given_again_at_once(world: World) -> None:
    seen: set[str] = set()
    for _ in range(3):
        ids = world.run(2, Placement={"AvailabilityZone": "us-east-1f"})
        seen |= {world.instance(i)["PrivateIpAddress"] for i in ids}
        world.ec2.terminate_instances(InstanceIds=ids)
        world.wait(ids, "terminated")
    assert len(seen) == 6


def test_the_default_network_is_loopback_with_a_subnet_a_zone(world: World) -> None:
    vpcs = world.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    assert [v["CidrBlock"] for v in vpcs] == ["127.16.0.0/16"]
    subnets = world.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpcs[0]["VpcId"]]}])["Subnets"]
    cidrs = {s["AvailabilityZone"]: s["CidrBlock"] for s in subnets}
    assert cidrs["us-east-1a"] == "127.16.0.0/20"
    assert cidrs["us-east-1b"] == "127.16.16.0/20"
    assert len(cidrs) == 6


def test_pending_takes_its_time_and_running_means_that_the_host_boots(world: World) -> None:
    asked = time.monotonic()
    (launched,) = world.ec2.run_instances(**order(UserData="#!/bin/sh\necho hello"))["Instances"]
    assert launched["State"] == {"Code": 0, "Name": "pending"}
    instance_id = launched["InstanceId"]
    world.wait([instance_id], "running")
    assert world.hosts.boot_times[instance_id] - asked >= PENDING
    spec, shown = world.hosts.booted[instance_id], world.instance(instance_id)
    assert spec.user_data == b"#!/bin/sh\necho hello"
    assert (spec.address, spec.zone) == (shown["PrivateIpAddress"], shown["Placement"]["AvailabilityZone"])
    assert (spec.lifecycle, spec.region, spec.image_id) == ("spot", "us-east-1", SANDBOX_AMI)


def test_terminating_halts_the_host_and_says_when_it_began(world: World) -> None:
    (instance_id,) = world.run(1)
    world.wait([instance_id], "running")
    before, asked = datetime.now(UTC).replace(microsecond=0), time.monotonic()
    (change,) = world.ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"]
    after = datetime.now(UTC)
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "shutting-down")
    world.wait([instance_id], "terminated")
    assert time.monotonic() - asked >= SHUTTING_DOWN
    assert world.hosts.halted.count(instance_id) == 1
    shown = world.instance(instance_id)
    assert shown["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    reason = re.fullmatch(r"User initiated \((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) GMT\)", shown["StateTransitionReason"])
    assert reason is not None
    assert before <= datetime.strptime(reason[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) <= after
    world.ec2.terminate_instances(InstanceIds=[instance_id])
    assert world.instance(instance_id)["StateTransitionReason"] == shown["StateTransitionReason"]


def test_an_instance_is_not_called_terminated_while_its_host_lives(world: World) -> None:
    (instance_id,) = world.run(1)
    world.wait([instance_id], "running")
    world.hosts.stuck = True
    world.ec2.terminate_instances(InstanceIds=[instance_id])
    time.sleep(3 * SHUTTING_DOWN)
    assert world.state(instance_id) == "shutting-down"
    world.hosts.stuck = False
    world.wait([instance_id], "terminated")


def test_a_host_is_never_booted_after_its_instance_began_to_end() -> None:
    hosts, lock, ended = NotingHosts(), threading.RLock(), threading.Event()
    lifecycle = Lifecycle(
        hosts, lock, pending_seconds=0.5, shutting_down_seconds=0.0, on_end=lambda instance, state: ended.set()
    )
    instance: Any = SimpleNamespace(id="i-1", state="pending", launch_time=datetime.now(UTC))
    spec = HostSpec("i-1", "127.16.0.10", "m5.large", "us-east-1a", "us-east-1", "ami-1", "spot", b"", "", None)
    lifecycle.launch(instance, spec)
    instance.state = "pending"
    lifecycle.end(instance, "user")
    instance.state = "shutting-down"
    assert ended.wait(20)
    time.sleep(0.6)
    lifecycle.close()
    assert (hosts.booted, hosts.halted) == ({}, ["i-1"])


def test_a_host_that_cannot_boot_ends_as_an_error_of_the_server(world: World) -> None:
    world.hosts.broken = True
    (instance_id,) = world.run(1)
    world.wait([instance_id], "terminated")
    assert world.instance(instance_id)["StateReason"]["Code"] == "Server.InternalError"


@pytest.mark.parametrize(("behavior", "end"), [("terminate", "terminated"), (None, "terminated")])
def test_a_spot_host_that_shuts_down_ends_its_instance(world: World, behavior: str | None, end: str) -> None:
    (instance_id,) = world.run(1, InstanceInitiatedShutdownBehavior=behavior)
    world.wait([instance_id], "running")
    world.cloud.shut_down_by_host(instance_id)
    world.wait([instance_id], end)
    shown = world.instance(instance_id)
    assert shown["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    # EC2 gives no time for this one.
    assert shown["StateTransitionReason"] == "User initiated"


def test_the_shutdown_behaviour_can_be_changed_and_the_groups_stay(world: World) -> None:
    (instance_id,) = world.run(1, InstanceMarketOptions=None)
    groups = world.instance(instance_id)["SecurityGroups"]
    for behavior, end in (("stop", "stopped"), ("terminate", "terminated")):
        world.ec2.modify_instance_attribute(
            InstanceId=instance_id, InstanceInitiatedShutdownBehavior={"Value": behavior}
        )
        attribute = "instanceInitiatedShutdownBehavior"
        told = world.ec2.describe_instance_attribute(InstanceId=instance_id, Attribute=attribute)
        assert told["InstanceInitiatedShutdownBehavior"]["Value"] == behavior
        assert world.instance(instance_id)["SecurityGroups"] == groups != []
        world.wait([instance_id], "running")
        world.cloud.shut_down_by_host(instance_id)
        world.wait([instance_id], end)
        if end == "stopped":
            world.ec2.start_instances(InstanceIds=[instance_id])


def test_every_instance_of_a_gang_has_the_profile_and_knows_its_role(world: World) -> None:
    iam = world.client("iam")
    iam.create_role(RoleName="node", AssumeRolePolicyDocument="{}")
    arn = iam.create_instance_profile(InstanceProfileName="nodes")["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName="nodes", RoleName="node")
    ids = world.run(3, IamInstanceProfile={"Name": "nodes"})
    assert {world.instance(i)["IamInstanceProfile"]["Arn"] for i in ids} == {arn}
    world.wait(ids, "running")
    assert {world.hosts.booted[i].role_name for i in ids} == {"node"}


def test_the_root_volume_is_shown_tagged_and_gone_with_its_instance(world: World) -> None:
    kinds = ("instance", "volume", "network-interface", "spot-instances-request")
    (instance_id,) = world.run(
        1,
        TagSpecifications=[{"ResourceType": kind, "Tags": TAGS} for kind in kinds],
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 100, "VolumeType": "gp3"}}],
    )
    (device,) = world.instance(instance_id)["BlockDeviceMappings"]
    assert (device["DeviceName"], device["Ebs"]["DeleteOnTermination"]) == ("/dev/sda1", True)
    mine = [{"Name": "tag:orch:run", "Values": ["run-1"]}]
    (volume,) = world.ec2.describe_volumes(Filters=mine)["Volumes"]
    assert (volume["VolumeId"], volume["Size"], volume["VolumeType"]) == (device["Ebs"]["VolumeId"], 100, "gp3")
    assert len(world.ec2.describe_network_interfaces(Filters=mine)["NetworkInterfaces"]) == 1
    assert len(world.ec2.describe_spot_instance_requests(Filters=mine)["SpotInstanceRequests"]) == 1
    world.ec2.terminate_instances(InstanceIds=[instance_id])
    world.wait([instance_id], "terminated")
    assert world.ec2.describe_volumes(Filters=mine)["Volumes"] == []
    assert world.ec2.describe_network_interfaces(Filters=mine)["NetworkInterfaces"] == []
    # The tags of what is gone are gone; those of the instance and its request are shown while they are.
    tagged = world.ec2.describe_tags(Filters=[{"Name": "key", "Values": ["orch:run"]}])["Tags"]
    assert {tag["ResourceType"] for tag in tagged} == {"instance", "spot-instances-request"}
    shown = world.instance(instance_id)
    assert (shown["BlockDeviceMappings"], shown["NetworkInterfaces"], shown["Tags"]) == ([], [], TAGS)
    assert "PrivateIpAddress" not in shown


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "resolve:ssm:/some/name"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "p9.huge"}, "InvalidParameterValue"),
        ({"KeyName": "nobody's"}, "InvalidKeyPair.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound"),
        ({"Placement": {"GroupName": "none"}}, "InvalidPlacementGroup.Unknown"),
        ({"Placement": {"AvailabilityZone": "us-east-1z"}}, "InvalidParameterValue"),
        ({"IamInstanceProfile": {"Name": "none"}}, "InvalidParameterValue"),
        ({"InstanceType": "p3dn.24xlarge", "Placement": {"AvailabilityZone": "us-east-1a"}}, "Unsupported"),
        ({"MinCount": 3, "MaxCount": 2}, "InvalidParameterValue"),
        ({"UserData": "x" * 20_000}, "InvalidParameterValue"),
        ({"LaunchTemplate": {"LaunchTemplateName": "one"}}, "UnsupportedOperation"),
        ({"TagSpecifications": [{"ResourceType": "vpc", "Tags": TAGS}]}, "InvalidParameterValue"),
    ],
)
def test_what_ec2_refuses_is_refused_with_its_code(world: World, changes: dict[str, Any], code: str) -> None:
    before = len(world.cloud.status()["instances"])
    assert refusal(lambda: world.run(2, **changes))[0] == code
    assert len(world.cloud.status()["instances"]) == before


def test_a_launch_that_fails_half_way_leaves_nothing(world: World) -> None:
    before = world.cloud.status()["instances"]
    volume = {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 10, "VolumeType": "io1"}}
    assert refusal(lambda: world.run(2, BlockDeviceMappings=[volume]))[1] == 400
    assert world.cloud.status()["instances"] == before
    assert world.ec2.describe_volumes()["Volumes"] == []
    assert world.ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_quotas_bound_what_runs_at_once(world: World) -> None:
    world.cloud.set_quota("L-34B43A08", 8)
    world.cloud.set_quota("L-1216C47A", 2)
    try:
        world.run(3)
        assert refusal(lambda: world.run(2))[0] == "MaxSpotInstanceCountExceeded"
        world.run(1, InstanceMarketOptions=None)
        assert refusal(lambda: world.run(1, InstanceMarketOptions=None))[0] == "VcpuLimitExceeded"
        world.run(1)
    finally:
        world.cloud.set_quota("L-34B43A08", 20_000)
        world.cloud.set_quota("L-1216C47A", 20_000)


def test_between_least_and_most_the_most_are_launched(world: World) -> None:
    assert len(world.run(MinCount=2, MaxCount=5)) == 5


def test_a_price_ceiling_below_the_market_is_refused(world: World) -> None:
    market = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.0001"}}
    assert refusal(lambda: world.run(1, InstanceMarketOptions=market))[0] == "SpotMaxPriceTooLow"


def test_a_dry_run_launches_nothing(world: World) -> None:
    before = len(world.cloud.status()["instances"])
    assert refusal(lambda: world.run(1, DryRun=True))[0] == "DryRunOperation"
    assert len(world.cloud.status()["instances"]) == before


def test_filters_select_what_ec2_would(world: World) -> None:
    tagged = [{"ResourceType": "instance", "Tags": TAGS}]
    world.ec2.create_placement_group(GroupName="filtered", Strategy="cluster")
    placement = {"AvailabilityZone": "us-east-1c", "GroupName": "filtered"}
    (a,) = world.run(1, TagSpecifications=tagged, Placement=placement, ClientToken="token-f")
    (b,) = world.run(1, InstanceMarketOptions=None, Placement={"AvailabilityZone": "us-east-1d"})
    world.wait([a, b], "running")

    def found(name: str, value: str) -> set[str]:
        running = {"Name": "instance-state-name", "Values": ["pending", "running"]}
        pages = world.ec2.get_paginator("describe_instances").paginate(
            Filters=[running, {"Name": name, "Values": [value]}]
        )
        return {i["InstanceId"] for page in pages for r in page["Reservations"] for i in r["Instances"]}

    assert found("tag:orch:run", "run-1") == found("tag-key", "orch:run") == found("client-token", "token-f") == {a}
    assert found("availability-zone", "us-east-1c") == found("placement-group-name", "filtered") == {a}
    assert found("instance-lifecycle", "spot") == found("tag:orch:run", "run-*") == {a}
    assert found("instance-id", b) == {b}
    assert found("instance-type", "m5.*") == {a, b}
    assert refusal(lambda: found("colour", "red"))[0] == "InvalidParameterValue"
    assert world.instance(a)["Placement"]["GroupName"] == "filtered"
    world.end()
    world.ec2.delete_placement_group(GroupName="filtered")


def test_pages_of_instances_miss_none(world: World) -> None:
    ids = set(world.run(5))
    pages = world.ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}], PaginationConfig={"PageSize": 2}
    )
    assert {i["InstanceId"] for page in pages for r in page["Reservations"] for i in r["Instances"]} == ids


def test_an_unknown_instance_is_not_found(world: World) -> None:
    unknown = ["i-0123456789abcdef0"]
    assert refusal(lambda: world.ec2.terminate_instances(InstanceIds=unknown))[0] == "InvalidInstanceID.NotFound"
    assert refusal(lambda: world.ec2.describe_instances(InstanceIds=unknown))[0] == "InvalidInstanceID.NotFound"


def test_spot_requests_follow_their_instances(world: World) -> None:
    (instance_id,) = world.run(1)
    request = world.instance(instance_id)["SpotInstanceRequestId"]

    def status() -> tuple[str, str]:
        (row,) = world.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request])["SpotInstanceRequests"]
        return row["State"], row["Status"]["Code"]

    assert status() == ("active", "fulfilled")
    world.ec2.terminate_instances(InstanceIds=[instance_id])
    assert status() == ("closed", "instance-terminated-by-user")


def test_a_cancelled_spot_request_leaves_its_instance_running(world: World) -> None:
    (instance_id,) = world.run(1)
    world.wait([instance_id], "running")
    mine = [{"Name": "instance-id", "Values": [instance_id]}]
    (request,) = world.ec2.describe_spot_instance_requests(Filters=mine)["SpotInstanceRequests"]
    world.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request["SpotInstanceRequestId"]])
    (request,) = world.ec2.describe_spot_instance_requests(Filters=mine)["SpotInstanceRequests"]
    assert (request["State"], request["Status"]["Code"]) == ("cancelled", "request-canceled-and-instance-running")
    assert world.state(instance_id) == "running"
    unknown = {"SpotInstanceRequestIds": ["sir-00000000"]}
    code = refusal(lambda: world.ec2.cancel_spot_instance_requests(**unknown))[0]
    assert code == "InvalidSpotInstanceRequestID.NotFound"


@pytest.mark.parametrize("operation", ["create_fleet", "request_spot_instances"])
def test_nothing_launches_machines_that_are_none(world: World, operation: str) -> None:
    orders: dict[str, dict[str, Any]] = {
        "create_fleet": {
            "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": {"LaunchTemplateName": "one", "Version": "1"}}],
            "TargetCapacitySpecification": {"TotalTargetCapacity": 1},
        },
        "request_spot_instances": {"InstanceCount": 1},
    }
    assert refusal(lambda: getattr(world.ec2, operation)(**orders[operation]))[0] == "UnsupportedOperation"


def test_what_moto_lacks_is_an_error_that_clients_can_read(world: World) -> None:
    assert refusal(world.ec2.describe_capacity_reservations)[0] == "UnsupportedOperation"


def test_the_image_is_shown_and_has_a_public_name(world: World) -> None:
    (image,) = world.ec2.describe_images(ImageIds=[SANDBOX_AMI])["Images"]
    assert image["State"] == "available"
    assert [i["ImageId"] for i in world.ec2.describe_images(Owners=["self"])["Images"]] == [SANDBOX_AMI]
    name = "/aws/service/orch-sandbox/host/latest/ami-id"
    assert world.client("ssm").get_parameter(Name=name)["Parameter"]["Value"] == SANDBOX_AMI


def test_waiters_of_boto3_work(world: World) -> None:
    ids = world.run(2)
    fast = {"Delay": 1, "MaxAttempts": 20}
    world.ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=fast)
    world.ec2.terminate_instances(InstanceIds=ids)
    world.ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig=fast)
    until(lambda: set(ids) <= set(world.hosts.halted))
