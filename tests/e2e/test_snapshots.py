"""Data sets on EBS volumes, on real hosts: the snapshot, a run on volumes of it, and what kills and failures leave."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sandbox import control
from tests.e2e.leftovers import left, nothing
from tests.e2e.sandbox_world import World, killed_after, wait_for

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(1800)]
FILES = {"a.txt": b"one", "train/images.bin": bytes(range(256)) * 40_000}
SNAPSHOT = ("dataset", "snapshot", "flowers", "--cloud", "sandbox", "-y")


@pytest.fixture(scope="module")
def world(world: World) -> World:
    control.up(world.home, pending_seconds=0.2, shutting_down_seconds=0.2)
    for name, body in FILES.items():
        file = world.home / "flowers" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    world.orch("dataset", "build", str(world.home / "flowers"), "flowers", "--as-is", "--cloud", "sandbox")
    return world


def snapshot(world: World, *arguments: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(world.orch(*SNAPSHOT, "--json", *arguments).stdout)
    return value


def data(mode: str) -> dict[str, Any]:
    return {"flowers": {"source": "dataset:flowers", "mode": mode}}


def test_a_snapshot_is_made_once_and_every_node_of_a_run_has_a_volume_of_it(world: World) -> None:
    refused = world.launch("early", "true", data=data("ebs"), check=7)
    assert "has no snapshot in us-east-1" in refused
    assert "orch dataset snapshot" in refused
    made = snapshot(world)
    assert made["built"]
    again = snapshot(world)
    assert (again["built"], again["run"], again["snapshot"]) == (False, None, made["snapshot"])
    assert left(world) == nothing(snapshots=1, folders=1)
    assert world.json("gc")["orphans"] == []
    (listed,) = world.json("dataset", "list")
    assert [item["snapshot_id"] for item in listed["snapshots"]] == [made["snapshot"]["snapshot_id"]]
    kinds = [line["kind"] for line in world.json("cost", made["run"])["other"]]
    assert kinds.count("ebs") == 2, "the builder's root, and the volume that it filled"

    here, wanted = "$ORCH_DATA_DIR/flowers", "; ".join(f"test -s $ORCH_DATA_DIR/flowers/{name}" for name in FILES)
    script = (
        f'{wanted}; grep -q one {here}/a.txt; mount | grep -F " $ORCH_DATA_DIR/flowers ext4 ro,"; touch up; sleep 600'
    )
    file = world.experiment("reader", script, data=data("ebs"), checkpoint_grace="1s")
    plan = json.loads(world.orch("plan", file, "--cloud", "sandbox", "--json").stdout)["data"][0]
    assert (plan["mode"], [way["mode"] for way in plan["ways"]]) == ("ebs", ["stage", "ebs"])
    told = world.orch("plan", file, "--cloud", "sandbox").stdout
    assert "as the experiment says" in told
    assert f"8 GiB gp3, 1 GiB gp3 of {made['snapshot']['snapshot_id']} (flowers)" in " ".join(told.split())
    world.orch("launch", "--cloud", "sandbox", "-y", "--detach", file)
    run = world.run_id("reader")
    wait_for("both nodes read", lambda: len(list(up(world))) == 2)
    ec2 = world.client("ec2")
    filters = [{"Name": "snapshot-id", "Values": [made["snapshot"]["snapshot_id"]]}]
    volumes = ec2.describe_volumes(Filters=filters)["Volumes"]
    assert len({volume["Attachments"][0]["InstanceId"] for volume in volumes}) == len(volumes) == 2
    assert all(volume["VolumeInitializationRate"] >= 100 for volume in volumes)
    wait_for("logs", lambda: "files on a volume of its own, read-only" in world.orch("logs", run).stdout)
    used = world.orch("dataset", "rm", "flowers", "-y", "--cloud", "sandbox", check=None)
    assert f"flowers is used by {run}" in used.stderr
    world.orch("stop", run, check=None)
    bill = world.json("cost", run)
    assert [line["kind"] for line in bill["other"]].count("ebs") == 4
    assert left(world) == nothing(snapshots=1, folders=1)
    forced = snapshot(world, "--force")
    assert forced["removed"] == [made["snapshot"]["snapshot_id"]]
    assert left(world) == nothing(snapshots=1, folders=1)


def up(world: World) -> list[Path]:
    return list(world.home.glob("sandbox/h/*/home/orch/*/bundle/workdir/up"))


@pytest.mark.parametrize(
    ("action", "code", "says"),
    [
        ("CreateSnapshot", "UnauthorizedOperation", "AWS refused ec2:CreateSnapshot"),
        ("CreateTags", "UnauthorizedOperation", "AWS refused ec2:CreateTags"),
        pytest.param(
            "CreateSnapshot", "SnapshotLimitExceeded", "ec2:CreateSnapshot: SnapshotLimit", marks=pytest.mark.long
        ),
    ],
)
def test_an_account_that_may_not_make_or_publish_snapshots_hears_it_and_is_left_as_it_was(
    world: World, action: str, code: str, says: str
) -> None:
    before = left(world)
    world.orch("sandbox", "fault", action, code)
    done = world.orch(*SNAPSHOT, "--force", check=None)
    assert done.returncode in {1, 4}
    assert says in done.stderr
    assert left(world) == before


def test_a_build_whose_data_is_damaged_publishes_nothing(world: World) -> None:
    before = left(world)
    (item,) = world.json("dataset", "list")
    key = f"{item['url'].split('/', 3)[3]}/a.txt"
    world.client("s3").put_object(Bucket=world.bucket(), Key=key, Body=b"two")
    done = world.orch(*SNAPSHOT, "--force", "--max-cost", "3", check=1)
    assert "no snapshot was published" in done.stderr
    assert re.search(r"cost so far: \$\d+\.\d+; `orch cost snapshot-flowers-", done.stderr)
    assert world.json("status", world.run_id("snapshot-flowers"))[0]["max_cost_usd"] == "3.000000"
    assert "a.txt is damaged" in done.stderr
    assert left(world) == before
    world.client("s3").put_object(Bucket=world.bucket(), Key=key, Body=FILES["a.txt"])


def test_a_set_that_lost_objects_is_had_from_its_snapshot(world: World) -> None:
    snapshot(world)
    (item,) = world.json("dataset", "list")
    key = f"{item['url'].split('/', 3)[3]}/train/images.bin"
    world.client("s3").delete_object(Bucket=world.bucket(), Key=key)
    damage = "is damaged: of 2 files 1 are gone or cut: train/images.bin"
    assert damage in world.launch("fetching", "true", data=data("stage"), check=7)
    wanted = f"test $(wc -c <$ORCH_DATA_DIR/flowers/train/images.bin) = {len(FILES['train/images.bin'])}"
    said = " ".join(world.launch("healed", wanted, data=data("auto"), num_nodes=1).split())
    assert f"{damage}; its snapshot is whole" in said
    world.client("s3").put_object(Bucket=world.bucket(), Key=key, Body=FILES["train/images.bin"])


@pytest.mark.parametrize("when", ["filling", "taking"])
def test_a_build_that_is_terminated_ends_its_run_and_leaves_what_was_published_before(world: World, when: str) -> None:
    kept = snapshot(world)["snapshot"]
    before = left(world)
    process = world.start(*SNAPSHOT, "--force")
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if when == "filling" and "`orch attach " in line:
            wait_for("it has a machine and a volume", lambda: left(world)["volumes"] > before["volumes"])
            process.terminate()
        if when == "taking" and "taking a snapshot of" in line:
            wait_for("EC2 has begun it", lambda: left(world)["snapshots"] > before["snapshots"])
            process.terminate()
    assert process.wait() == 130
    assert "interrupted: ending the run, so that nothing is left" in said
    assert re.search(r"cost so far: \$\d+\.\d+; `orch cost snapshot-flowers-", said)
    assert "published" not in said
    assert left(world) == before
    assert world.json("gc")["orphans"] == []
    (listed,) = world.json("dataset", "list")
    assert [item["snapshot_id"] for item in listed["snapshots"]] == [kept["snapshot_id"]]


def test_a_build_killed_after_any_change_leaves_only_what_gc_finds_and_removes(world: World) -> None:
    assert killed_after(world, 5, *SNAPSHOT, "--force") == "RunInstances"
    (dead,) = {item["run"] for item in json.loads(world.orch("gc", "--json", check=9).stdout)["orphans"]}
    done = world.orch(*SNAPSHOT, "--force", "--json")
    assert f"{dead} built the same and was killed" in done.stderr
    assert left(world) == nothing(snapshots=1, folders=1)
    kept = json.loads(done.stdout)["snapshot"]
    names: list[str] = []
    while name := killed_after(world, len(names) + 1, *SNAPSHOT, "--force"):
        names.append(name)
        world.orch("gc", "--cloud", "sandbox", "-y")
        assert world.json("gc")["orphans"] == []
        published = world.json("dataset", "list")[0]["snapshots"]
        assert left(world) == nothing(snapshots=len(published), folders=len(published)), names
        # The published one is never at stake before another is.
        assert names.count("CreateTags") or [item["snapshot_id"] for item in published] == [kept["snapshot_id"]]
    assert {"ImportKeyPair", "CreateSecurityGroup", "RunInstances", "CreateSnapshot", "CreateTags"} <= set(names)
    assert {"TerminateInstances", "DeleteSnapshot"} <= set(names)
    world.orch("dataset", "rm", "flowers", "-y", "--cloud", "sandbox")
    assert left(world) == nothing()
