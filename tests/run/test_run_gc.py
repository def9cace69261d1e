"""What is left behind is found by tag and removed in order; what is somebody's, or not orch's, is let be. Over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.ids import Keys
from orchestrator.errors import Unreachable
from orchestrator.run.gc import Orphan, find_orphans, remove
from orchestrator.run.lease import Lease, Owner
from orchestrator.sandbox.catalogue import SANDBOX_AMI
from orchestrator.sandbox.cloud import SandboxCloud
from tests.core.worlds import spec

RUN = "lost-20261120-120000-abcd"
TAGS = {"orch:run": RUN}
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKzWpwZ1Nq7QmXrKkJ1Y0wq4D3u3r0w4CkXJd0l8oT2m orch"
KINDS = [  # in the order in which they go
    "spot-request",
    "instance",
    "snapshot",
    "volume",
    "network-interface",
    "placement-group",
    "security-group",
    "key-pair",
]


@pytest.fixture
def left(session: Session) -> Iterator[None]:
    """One thing of every kind that carries a run's tag, and one that does not."""
    make(session, TAGS, "orch-lost")
    make(session, {"owner": "somebody"}, "foreign")
    yield
    ec2 = session.client("ec2")
    Compute(session).terminate(item["InstanceId"] for item in instances(ec2))


def make(session: Session, tags: dict[str, str], name: str) -> None:
    ec2, compute = session.client("ec2"), Compute(session)

    def spec(*kinds: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]} for kind in kinds]

    group = compute.create_security_group(name, compute.default_vpc(), "203.0.113.7/32", 22, tags)
    compute.create_placement_group(name, tags)
    compute.import_key_pair(name, PUBLIC, tags)
    subnet = compute.subnets()["us-east-1b"].id
    ec2.run_instances(
        ImageId=SANDBOX_AMI,
        InstanceType="p3.16xlarge",
        MinCount=1,
        MaxCount=1,
        SecurityGroupIds=[group],
        SubnetId=subnet,
        KeyName=name,
        InstanceMarketOptions={"MarketType": "spot"},
        TagSpecifications=spec("instance", "volume", "network-interface", "spot-instances-request"),
    )
    volume = ec2.create_volume(AvailabilityZone="us-east-1b", Size=8, TagSpecifications=spec("volume"))
    ec2.create_snapshot(VolumeId=volume["VolumeId"], TagSpecifications=spec("snapshot"))
    ec2.create_network_interface(SubnetId=subnet, Groups=[group], TagSpecifications=spec("network-interface"))


def instances(ec2: Any) -> list[dict[str, Any]]:
    found = [item for group in ec2.describe_instances()["Reservations"] for item in group["Instances"]]
    return [item for item in found if item["State"]["Name"] not in {"shutting-down", "terminated"}]


def foreign(session: Session) -> list[int]:
    """Return how many things of each kind there are that are not orch's."""
    ec2 = session.client("ec2")
    mine = [{"Name": "tag:owner", "Values": ["somebody"]}]
    return [
        len(instances(ec2)),
        len(ec2.describe_key_pairs(Filters=mine)["KeyPairs"]),
        len(ec2.describe_network_interfaces(Filters=mine)["NetworkInterfaces"]),
        len(ec2.describe_placement_groups(Filters=mine)["PlacementGroups"]),
        len(ec2.describe_security_groups(Filters=mine)["SecurityGroups"]),
        len(ec2.describe_snapshots(OwnerIds=["self"], Filters=mine)["Snapshots"]),
        len(ec2.describe_volumes(Filters=mine)["Volumes"]),
        sum(item["State"] == "active" for item in ec2.describe_spot_instance_requests()["SpotInstanceRequests"]),
    ]


@pytest.mark.usefixtures("left")
def test_everything_with_a_runs_tag_goes_in_order_and_nothing_else(session: Session, bucket: Bucket) -> None:
    orphans = find_orphans(session, bucket)
    assert [item.kind for item in orphans] == KINDS, "its volume and interface go with the instance"
    assert {(item.run, item.why, item.region) for item in orphans} == {
        (RUN, f"{bucket.name} holds no such run", "us-east-1")
    }
    said: list[str] = []
    assert remove(session, bucket, orphans, said.append) == []
    done = [line.split()[1] if line.startswith("deleted") else "instance" for line in said]
    assert done == KINDS
    assert find_orphans(session, bucket) == []
    assert foreign(session) == [1, 1, 2, 1, 1, 1, 2, 1]


@pytest.mark.usefixtures("left")
def test_what_somebody_looks_after_is_no_orphan_even_when_it_was_one(
    session: Session, bucket: Bucket, cloud: SandboxCloud
) -> None:
    before = find_orphans(session, bucket)
    assert before
    lease = Lease(bucket, RUN, Owner.me())
    assert lease.try_acquire(bucket.server_time())
    assert find_orphans(session, bucket) == []
    assert remove(session, bucket, before, pytest.fail) == [], "it was resumed between list and yes"
    lease.release(bucket.server_time())
    run = replace(spec(1), run_id=RUN)
    bucket.put(Keys(RUN).spec, replace(run, recipe="d1").to_json())
    assert {item.why for item in find_orphans(session, bucket)} == {
        "its scheduler is gone (`orch ami build` with the same recipe removes this and begins anew)"
    }
    bucket.put(Keys(RUN).spec, run.to_json())
    assert {item.why for item in find_orphans(session, bucket)} == {
        "its scheduler is gone (`orch resume` continues the run instead)"
    }
    cloud.add_fault("GetObject", "InternalError", 50)
    with pytest.raises(Unreachable):
        find_orphans(session, bucket)
    cloud.clear_faults()
    bucket.put(Keys(RUN).entry(1), json.dumps(["no", "entry"]).encode())
    assert all(item.why.startswith("its run cannot be read (") for item in find_orphans(session, bucket))
    bucket.delete(Keys(RUN).entry(1))
    bucket.delete(Keys(RUN).lease)
    assert remove(session, bucket, before[:1], lambda _: None) != [], "more of the run is there than was removed"
    assert {item.why for item in find_orphans(session, bucket)} == {"no scheduler was ever there"}
    assert remove(session, bucket, before, lambda _: None) == []


def test_what_lost_its_tag_since_is_not_removed(session: Session, bucket: Bucket) -> None:
    ec2 = session.client("ec2")
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "orch:run", "Value": RUN}]}]
    volume = ec2.create_volume(AvailabilityZone="us-east-1b", Size=8, TagSpecifications=tags)["VolumeId"]
    orphans = [item for item in find_orphans(session, bucket) if item.id == volume]
    assert orphans == [replace(Orphan("volume", volume, RUN, orphans[0].why), region="us-east-1")]
    ec2.delete_tags(Resources=[volume], Tags=[{"Key": "orch:run"}])
    assert remove(session, bucket, orphans, pytest.fail) == []
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available"
    ec2.delete_volume(VolumeId=volume)


def test_the_regions_of_the_sandbox_are_one(session: Session) -> None:
    assert Compute(session).regions() == ("us-east-1",)
