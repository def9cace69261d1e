"""Snapshots of data sets: found by experiments once they are published, by `orch gc` until then. Over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.images import Images
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.snapshots import Snapshots
from orchestrator.core.caps import in_force
from orchestrator.core.experiment import Experiment
from orchestrator.core.ids import TAG_BYTES, TAG_RUN, TAG_VERSION, Keys
from orchestrator.core.plan import Plan
from orchestrator.core.settings import Settings
from orchestrator.core.volumes import DataVolume, Snapshot
from orchestrator.errors import NotFound
from orchestrator.run.datasets import MEND, Dataset, list_datasets
from orchestrator.run.datasets import remove as remove_dataset
from orchestrator.run.gc import find_orphans, remove
from orchestrator.run.home import Home
from orchestrator.run.ledger import Ledger
from orchestrator.run.renewal import renew
from orchestrator.run.snapshot_builder import SnapshotBuilder
from orchestrator.run.snapshots import _remove_older, _remove_unpublished, _users
from orchestrator.run.sources import There, look
from orchestrator.run.volumes import Chosen, choose
from orchestrator.run.wish import ask_resume
from tests.core.worlds import at, facts, instance, offer, spec

RUN = "snapshot-flowers-20261120-120000-abcd"
VERSION = "0123456789abcdef"
BYTES = 149 * 2**30


@pytest.fixture
def snapshots(session: Session) -> Snapshots:
    return Snapshots(session)


def taken(session: Session, snapshots: Snapshots, run: str = RUN) -> Snapshot:
    ec2 = session.client("ec2")
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=155)["VolumeId"]
    snapshot_id = snapshots.take(
        volume, {TAG_RUN: run, "Name": f"orch-{run}", TAG_VERSION: VERSION, TAG_BYTES: str(BYTES)}
    )
    ec2.delete_volume(VolumeId=volume)
    # Two that were begun within a second are in no order.
    return next(made for made in snapshots.of_run(run) if made.snapshot_id == snapshot_id)


def asked(mode: str, url: str) -> Experiment:
    resources = {"any_of": [{"instance_type": "p3.16xlarge"}]}
    return spec(data={"x": {"source": url, "mode": mode}}, resources=resources).experiment


def plan_on(instance_type: str, price: int) -> Plan:
    return Plan(2, (replace(offer(price=price), instance_type=instance_type),), (), (), spec().timer)


PLAN = plan_on("p3.16xlarge", 3_000_000)


def test_a_snapshot_is_an_orphan_until_it_is_published_and_kept_from_then_on(
    session: Session, bucket: Bucket, snapshots: Snapshots
) -> None:
    made, lost = taken(session, snapshots), taken(session, snapshots, RUN.replace("flowers", "lost"))
    assert (made.name, made.version, made.bytes, made.size_gib, made.state) == ("", VERSION, BYTES, 155, "completed")
    orphans = find_orphans(session, bucket)
    assert {(item.kind, item.id) for item in orphans} == {("snapshot", item.snapshot_id) for item in (made, lost)}
    assert snapshots.published() == ()
    snapshots.publish(made, "flowers")
    assert remove(session, bucket, orphans, lambda _: None) == [], "it was published between list and yes"
    assert find_orphans(session, bucket) == []
    assert snapshots.published("flowers") == snapshots.published() == (replace(made, name="flowers"),)
    assert snapshots.published("roses") == ()
    elsewhere = Bucket(session, "no-such-bucket-here")
    (gone,) = list_datasets(session, elsewhere, snapshots=snapshots.published())
    assert (gone.reference, gone.state, gone.objects) == (f"flowers@{VERSION}", "damaged", 0)
    remove_dataset(session, elsewhere, "flowers", VERSION)
    for _ in range(2):
        snapshots.remove(made)
    assert snapshots.published() == ()


def test_an_older_snapshot_stays_while_there_are_volumes_of_it_or_a_run_waits_for_some(
    session: Session, bucket: Bucket, snapshots: Snapshots
) -> None:
    ec2, said = session.client("ec2"), list[str]()
    item = Dataset("bucket", "flowers", VERSION, None, 1, BYTES, at(0))
    older, newer = taken(session, snapshots), taken(session, snapshots, RUN.replace("abcd", "ef01"))
    for made in (older, newer):
        snapshots.publish(made, "flowers")
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=older.snapshot_id)["VolumeId"]
    assert _remove_older(snapshots, bucket, newer, item, said.append) == ()
    ec2.delete_volume(VolumeId=volume)
    waits = replace(spec(1), volumes=(DataVolume("x", older.snapshot_id, VERSION, 155, BYTES),))
    bucket.put(Keys(waits.run_id).spec, waits.to_json())
    assert _remove_older(snapshots, bucket, newer, item, said.append) == ()
    kept = [f"kept {older.snapshot_id}: {user} may need it again" for user in (volume, waits.run_id)]
    assert [line.partition(";")[0] for line in said] == kept
    bucket.delete(Keys(waits.run_id).spec)
    removed = _remove_older(snapshots, bucket, newer, item, said.append)
    assert [old.snapshot_id for old in removed] == [older.snapshot_id]
    assert [there.snapshot_id for there in snapshots.published()] == [newer.snapshot_id]
    snapshots.remove(newer)


def test_a_run_is_resumed_on_another_snapshot_of_the_same_data_which_then_is_in_use(
    session: Session, bucket: Bucket, snapshots: Snapshots, settings: Settings
) -> None:
    url = f"s3://{bucket.name}/datasets/flowers/{VERSION}"
    gone = DataVolume("x", "snap-0123456789abcdef0", VERSION, 155, BYTES)
    data = {"x": {"source": url, "mode": "ebs"}, "y": {"source": "s3://no-such-bucket-here/y", "mode": "stage"}}
    image = Images(session).resolve(settings.image or "")
    ended = replace(spec(1, data=data), bucket=bucket.name, image=image, volumes=(gone,))
    lacks = renew(ended, session, None).faults
    assert [fault.partition(":")[0] for fault in lacks] == ["data.x", "data.x", "data.y"]
    assert f"{gone.snapshot} is gone, and flowers@{VERSION} has no snapshot in us-east-1" in lacks[0]
    assert f"nothing at {url} ({MEND})" in lacks[1]
    assert "there is no bucket no-such-bucket-here (put it back)" in lacks[2]
    bucket.put(f"datasets/flowers/{VERSION}/MANIFEST.json", b'{"files": []}')
    made = taken(session, snapshots)
    snapshots.publish(made, "flowers")
    bucket.put(Keys(ended.run_id).spec, ended.to_json())
    assert _users(snapshots, bucket, made) == ()
    found = renew(ended, session, None)
    assert found.volumes == (replace(gone, snapshot=made.snapshot_id),)
    ledger = Ledger(bucket, ended.run_id, "scheduler")
    ledger.append("intent", "end", {"verdict": {"kind": "stopped", "message": "m"}}, epoch=1, now=at(0))
    ledger.append("outcome", "close", {"generation": 1}, epoch=1, now=at(0))
    state = ask_resume(bucket, ended.run_id, "me", None, found)
    assert in_force(ended, state).volumes == found.volumes
    assert _users(snapshots, bucket, made) == (ended.run_id,)
    assert renew(in_force(ended, state), session, None).volumes == (), "what is there is left as it is"
    bucket.delete_prefix(f"runs/{ended.run_id}/")
    bucket.delete_prefix("datasets/")
    snapshots.remove(made)


def test_a_run_whose_image_is_gone_is_resumed_on_what_its_name_means_now(session: Session, settings: Settings) -> None:
    ended = replace(spec(1), image="ami-0123456789abcdef0")
    assert renew(ended, session, None).faults[0].startswith("resources.image: there is no image ami-0123456789abcdef0")
    there = Images(session).resolve(settings.image or "")
    found = renew(ended, session, settings.image)
    assert (found.to_json(), found.faults) == ({"image": there}, ())
    assert found.notes(ended) == [f"image {ended.image} is gone: the nodes boot {there}"]
    (why,) = renew(ended, session, "no-such-image").faults
    assert "is gone, and this account has no image named 'no-such-image'" in why


def test_objects_that_no_folder_can_hold_are_refused_in_the_plan(session: Session, bucket: Bucket) -> None:
    for name in ("a", "a/b", "c/", "../d"):
        bucket.put(f"odd/{name}", b"x")
    with pytest.raises(NotFound) as refused:
        look(asked("stage", f"s3://{bucket.name}/odd"), session, "runs")
    holds = "holds objects that no folder can: '../d' would leave its folder, 'a' would be a file and a folder"
    assert refused.value.message == f"data.x: s3://{bucket.name}/odd {holds}"
    bucket.delete_prefix("odd/")


def test_of_what_a_build_made_twice_nothing_is_left_but_what_it_published(
    session: Session, snapshots: Snapshots
) -> None:
    first, second = taken(session, snapshots), taken(session, snapshots)
    assert {made.snapshot_id for made in snapshots.of_run(RUN)} == {first.snapshot_id, second.snapshot_id}
    # EC2 does not show yet that the first has a name.
    _remove_unpublished(snapshots, RUN, first)
    assert snapshots.of_run(RUN) == (first,)
    _remove_unpublished(snapshots, RUN, None)
    assert snapshots.of_run(RUN) == ()


def test_a_snapshot_that_ec2_does_not_show_yet_is_not_asked_for_again(
    session: Session, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = DataVolume("flowers", "", VERSION, 155, BYTES)
    run = replace(spec(1), run_id=RUN, region=session.region, bucket=bucket.name, volumes=(volume,))
    bucket.put(Keys(RUN).spec, run.to_json())
    builder = SnapshotBuilder(session, bucket, Home(tmp_path), RUN, lambda _: None, VERSION)
    assert builder._made() is None
    disk = session.client("ec2").create_volume(AvailabilityZone="us-east-1a", Size=155)["VolumeId"]
    monkeypatch.setattr(Compute, "volume_at", lambda *_: disk)
    with monkeypatch.context() as late:
        late.setattr(Snapshots, "of_run", lambda *_: ())
        builder._take(instance(0), facts(0))
        made = builder._made()
    (shown,) = builder._snapshots.of_run(RUN)
    assert made == (shown.snapshot_id, "pending")
    assert builder._made() == (shown.snapshot_id, "completed")
    builder._snapshots.remove(shown)
    session.client("ec2").delete_volume(VolumeId=disk)
    bucket.delete(Keys(RUN).spec)


@pytest.fixture
def flowers(bucket: Bucket) -> Iterator[str]:
    """A data set of the version, by the URL of what lies there."""
    prefix = f"datasets/flowers/{VERSION}/"
    bucket.put(f"{prefix}a", b"one")
    bucket.put(f"{prefix}MANIFEST.json", b"{}")
    yield f"s3://{bucket.name}/{prefix}"
    bucket.delete_prefix(prefix)


def there(experiment: Experiment, session: Session, bucket: Bucket) -> dict[str, There]:
    """Return what there is of its data, whose objects are taken to have the bytes of the snapshot."""
    return {name: replace(item, size=BYTES) for name, item in look(experiment, session, bucket.name).items()}


def test_the_mode_of_every_data_set_is_settled_before_anything_is_launched(
    session: Session, bucket: Bucket, snapshots: Snapshots, flowers: str
) -> None:
    def settled(mode: str, plan: Plan = PLAN, url: str = flowers) -> Chosen:
        experiment = asked(mode, url)
        return choose(experiment, there(experiment, session, bucket), plan)

    bucket.put("plain/a", b"one")
    nothing = settled("auto", url=f"s3://{bucket.name}/plain")
    assert (nothing.experiment.data["x"].mode, nothing.volumes, nothing.choices) == ("stage", (), ())
    without = settled("auto")
    assert without.experiment.data["x"].mode == "stage"
    assert [way.mode for way in without.choices[0].ways] == ["stage"]
    made = taken(session, snapshots)
    snapshots.publish(made, "flowers")
    told = settled("ebs")
    assert told.volumes == (DataVolume("x", made.snapshot_id, VERSION, 155, BYTES),)
    assert (told.experiment.data["x"].mode, told.notes) == ("ebs", ())
    # Half the memory of the one holds it; of the other it does not, and it would go to a slow root volume.
    small = plan_on("p3.8xlarge", 2_000_000)
    picked = [settled("auto", plan).choices[0] for plan in (PLAN, small)]
    assert [choice.mode for choice in picked] == ["stage", "ebs"]
    assert all([way.mode for way in choice.ways] == ["stage", "ebs"] for choice in picked)
    assert settled("stage", small).volumes == ()
    snapshots.remove(made)


def test_a_set_that_lost_files_comes_on_volumes_of_its_snapshot_where_that_is_whole(
    session: Session, bucket: Bucket, snapshots: Snapshots, flowers: str
) -> None:
    row = {"path": "b", "size": 3, "sha256": "0" * 64}
    bucket.put(f"datasets/flowers/{VERSION}/MANIFEST.json", json.dumps({"files": [row]}).encode())
    damage = "is damaged: of 1 file 1 are gone or cut: b"
    with pytest.raises(NotFound, match=rf"^data\.x: {flowers} {damage}$") as caught:
        look(asked("auto", flowers), session, bucket.name)
    assert caught.value.hint == MEND
    with pytest.raises(NotFound, match=rf"has no snapshot in us-east-1; data\.x: {flowers} {damage}$"):
        look(asked("ebs", flowers), session, bucket.name)
    made = taken(session, snapshots)
    snapshots.publish(made, "flowers")
    for mode, why in (("auto", "since its objects are damaged"), ("ebs", "as the experiment says")):
        experiment = asked(mode, flowers)
        chosen = choose(experiment, look(experiment, session, bucket.name), PLAN)
        (choice,) = chosen.choices
        assert (choice.mode, choice.bytes, choice.why) == ("ebs", BYTES, why)
        assert [way.mode for way in choice.ways] == ["ebs"], "the other way does not work"
        assert chosen.volumes == (DataVolume("x", made.snapshot_id, VERSION, 155, BYTES),)
        assert chosen.notes == (f"data x: {flowers} {damage}; its snapshot is whole, and {MEND}",)
    with pytest.raises(NotFound, match=damage):
        look(asked("stage", flowers), session, bucket.name)
    bucket.put(f"datasets/flowers/{VERSION}/MANIFEST.json", b"[")
    with pytest.raises(NotFound, match=r"its MANIFEST\.json cannot be read"):
        look(asked("ebs", flowers), session, bucket.name)
    snapshots.remove(made)


def test_a_volume_that_cannot_be_had_is_refused_in_the_plan(
    session: Session, bucket: Bucket, snapshots: Snapshots, flowers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match=rf"^data\.x: flowers@{VERSION} has no snapshot in us-east-1$") as caught:
        look(asked("ebs", flowers), session, bucket.name)
    assert "orch dataset snapshot" in caught.value.hint
    bucket.put("plain/a", b"one")
    with pytest.raises(NotFound, match="only a data set of `orch dataset build` in the bucket of the runs"):
        look(asked("ebs", f"s3://{bucket.name}/plain"), session, bucket.name)
    pending = replace(taken(session, snapshots), name="flowers", state="pending")
    monkeypatch.setattr(Snapshots, "published", lambda *_: (pending,))
    with pytest.raises(NotFound, match=f"{pending.snapshot_id}, the snapshot of flowers@{VERSION}.* is pending"):
        look(asked("ebs", flowers), session, bucket.name)
    snapshots.remove(pending)
