"""Images that `orch` makes: taken and published once, found by `orch gc` until then, removed whole. Over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws.images import Images
from orchestrator.aws.own_images import OwnImages
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.ids import TAG_RECIPE, TAG_RUN, Keys
from orchestrator.core.images import Image
from orchestrator.core.ledger import Verdict
from orchestrator.errors import BadInput, NoPermission, NotFound
from orchestrator.run.build import Plans, _build, _remove_older, cap_of_check, users
from orchestrator.run.builds import Build, building
from orchestrator.run.gc import find_orphans, remove
from orchestrator.run.home import Home
from orchestrator.run.lease import LIFETIME, Lease, Owner, kept
from orchestrator.run.ledger import Ledger
from orchestrator.run.prepare import Prepared
from orchestrator.run.read import open_runs
from orchestrator.sandbox.catalogue import SANDBOX_AMI
from orchestrator.sandbox.cloud import SandboxCloud
from tests.core.worlds import at, spec

RUN = "ami-tiny-20261120-120000-abcd"


@pytest.fixture
def own(session: Session) -> OwnImages:
    return OwnImages(session)


def machine(session: Session, image: str = SANDBOX_AMI) -> str:
    """Launch a machine that carries no tag, and wait until it runs."""
    ec2 = session.client("ec2")
    made = str(
        ec2.run_instances(ImageId=image, InstanceType="m5.large", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    )
    until(lambda: bool(running(ec2, made)))
    return made


def running(ec2: Any, instance: str) -> list[Any]:
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    return [item for item in found if item["State"]["Name"] == "running"]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def taken(session: Session, own: OwnImages, run: str, digest: str = "d1") -> Image:
    instance = machine(session)
    for _ in range(2):  # a reply may be lost, and the same asked again
        own.take(instance, f"orch-{run}", {TAG_RUN: run, "Name": f"orch-{run}", TAG_RECIPE: digest})
    until(lambda: (found := own.of_run(run)) is not None and found.state == "available")
    made = own.of_run(run)
    assert made is not None
    session.client("ec2").terminate_instances(InstanceIds=[instance])
    return made


def snapshots(session: Session) -> set[str]:
    return {item["SnapshotId"] for item in session.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]}


def test_an_image_is_an_orphan_until_it_is_published_and_its_name_leads_to_it_from_then_on(
    session: Session, bucket: Bucket, own: OwnImages
) -> None:
    made = taken(session, own, RUN)
    assert (made.name, made.digest, made.run, len(made.snapshots)) == ("", "d1", RUN, 1)
    assert [(item.kind, item.id) for item in find_orphans(session, bucket)] == [
        ("image", made.image_id),
        ("snapshot", made.snapshots[0]),
    ]
    with pytest.raises(NotFound):
        Images(session).resolve("tiny")
    assert own.published() == ()
    own.publish(made, "tiny")
    assert find_orphans(session, bucket) == []
    assert Images(session).resolve("tiny") == made.image_id
    assert own.published("tiny") == own.published() == (replace(made, name="tiny"),)
    assert own.published("other") == ()
    (snapshot,) = session.client("ec2").describe_snapshots(SnapshotIds=list(made.snapshots))["Snapshots"]
    assert {"Key": "orch:image", "Value": "tiny"} in snapshot["Tags"]
    own.remove(made)
    own.remove(made)
    assert own.published() == ()
    assert not set(made.snapshots) & snapshots(session)


def test_what_a_killed_build_or_removal_leaves_of_an_image_goes_with_gc(
    session: Session, bucket: Bucket, own: OwnImages
) -> None:
    kept_one, half, lost = (taken(session, own, f"ami-t{n}-20261120-120000-abcd") for n in range(3))
    for image in (kept_one, half):
        own.publish(image, "tiny")
    session.client("ec2").deregister_image(ImageId=half.image_id)  # and then the removal was killed
    orphans = find_orphans(session, bucket)
    assert {(item.kind, item.id) for item in orphans} == {
        ("snapshot", half.snapshots[0]),
        ("image", lost.image_id),
        ("snapshot", lost.snapshots[0]),
    }
    assert remove(session, bucket, orphans, lambda _: None) == []
    assert [item.image_id for item in own.published()] == [kept_one.image_id]
    assert set(kept_one.snapshots) <= snapshots(session)
    own.remove(kept_one)


def test_who_needs_an_image_is_known_and_it_stays_for_them(session: Session, bucket: Bucket, own: OwnImages) -> None:
    made = taken(session, own, "ami-used-20261120-120000-abcd")
    assert users(own, bucket, made) == ()
    user = machine(session, made.image_id)
    assert users(own, bucket, made) == (user,)
    session.client("ec2").create_tags(Resources=[user], Tags=[{"Key": TAG_RUN, "Value": RUN}])
    assert users(own, bucket, made) == (f"{RUN} ({user})",)
    session.client("ec2").terminate_instances(InstanceIds=[user])
    until(lambda: users(own, bucket, made) == ())
    own.publish(made, "used")
    newer, said = taken(session, own, "ami-used-20261120-130000-abcd"), list[str]()
    waits = replace(spec(1), image=made.image_id)
    bucket.put(Keys(waits.run_id).spec, waits.to_json())
    assert users(own, bucket, made) == (waits.run_id,)
    kept_one = replace(made, name="used")
    assert _remove_older(own, bucket, replace(newer, name="used"), said.append) == ((), (kept_one,))
    assert f"kept {made.image_id}: {waits.run_id} may need it" in said[0]
    bucket.put(Keys(waits.run_id).spec, replace(waits, recipe="d1").to_json())
    assert users(own, bucket, made) == (), "nobody goes on with a build that was killed"
    lease = Lease(bucket, waits.run_id, Owner.me())
    assert lease.try_acquire(bucket.server_time())
    assert users(own, bucket, made) == (waits.run_id,)
    Ledger(bucket, waits.run_id, "test").append("outcome", "close", {"generation": 1}, epoch=1, now=at(0))
    assert _remove_older(own, bucket, replace(newer, name="used"), said.append) == ((kept_one,), ())
    bucket.delete_prefix(f"runs/{waits.run_id}/")
    own.remove(newer)


def test_the_same_is_not_built_twice_at_once(session: Session, bucket: Bucket, tmp_path: Path) -> None:
    other = replace(spec(1), recipe="d7")
    bucket.put(Keys(other.run_id).spec, other.to_json())
    lease = Lease(bucket, other.run_id, Owner.me())
    assert lease.try_acquire(bucket.server_time())

    def build(digest: str) -> None:
        with building(session, bucket, Home(tmp_path), print, lambda it: it.recipe == digest):
            pass

    with pytest.raises(BadInput, match=f"{other.run_id} builds the same right now"):
        build("d7")
    build("d8")
    lease.release(bucket.server_time())
    build("d7")
    bucket.delete_prefix(f"runs/{other.run_id}/")


def test_an_image_that_a_build_cannot_ask_for_any_more_is_removed(
    cloud: SandboxCloud, session: Session, bucket: Bucket, own: OwnImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Builder:
        """A builder whose run has just ended, with an image of it, and EC2 that refuses the next question about it."""

        def __init__(self, *_: object) -> None:
            self.lease = Lease(bucket, RUN, Owner.me())
            assert self.lease.try_acquire(bucket.server_time())

        def to_the_end(self) -> Verdict:
            taken(session, own, RUN)
            cloud.add_fault("DescribeImages", "UnauthorizedOperation")
            return Verdict("finished", "done")

    class Begun(Build):
        def begin(self, prepared: Prepared) -> str:
            return RUN

    monkeypatch.setattr("orchestrator.run.build.ImageBuilder", Builder)
    before = snapshots(session)
    nothing: Any = None
    wanted, plans = nothing, Plans(nothing, nothing)
    with pytest.raises(NoPermission):
        _build(wanted, plans, Begun(session, bucket, nothing, lambda _: None))
    assert own.of_run(RUN) is None
    assert snapshots(session) == before
    bucket.delete_prefix(f"runs/{RUN}/")


def test_a_run_that_another_version_wrote_may_need_anything_until_it_has_ended(bucket: Bucket) -> None:
    run = spec(1).run_id
    bucket.put(Keys(run).spec, b'{"version": 0}')
    assert open_runs(bucket, lambda _: False) == [run]
    Ledger(bucket, run, "test").append("outcome", "close", {"generation": 1}, epoch=1, now=at(0))
    assert open_runs(bucket, lambda _: True) == []
    bucket.delete_prefix(f"runs/{run}/")


def test_the_check_gets_what_the_build_leaves_of_the_cap_and_there_is_none_for_nothing() -> None:
    assert cap_of_check(50_000, 40_000) == 10_000
    verdict = cap_of_check(50_000, 40_001)
    assert isinstance(verdict, Verdict)
    assert (verdict.kind, verdict.message) == (
        "capped", "it cost $0.04, and max_cost of $0.05 leaves nothing for the check"
    )  # fmt: skip


def test_a_lease_is_kept_beside_other_work_and_let_go_of_afterwards(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.run.lease.KEEP_SECONDS", 0.01)
    lease, other = (Lease(bucket, "kept-1", Owner("elsewhere", 1, name)) for name in "ab")
    start = bucket.server_time()
    clock = [start]
    assert lease.try_acquire(start)
    renewed = threading.Event()

    def now() -> Any:
        held = other.read()
        if held is not None and held.expires > start + LIFETIME:
            renewed.set()
        return clock[0]

    with kept(lease, now):
        clock[0] = start + LIFETIME * 0.9
        assert renewed.wait(20)
        assert not other.try_acquire(start + LIFETIME * 1.5)
    assert other.try_acquire(clock[0])
