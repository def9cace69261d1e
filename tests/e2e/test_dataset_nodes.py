"""A data set that two sandbox nodes pack, of which one is taken on the way and the command is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.datasets.noted import contents
from tests.e2e.sandbox_world import World, wait_for
from tests.trainer.pictures import folders
from tests.trainer.test_trainer_sources import tars_of_tars

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(900)]
PHOTOS = "s3://photos/set"
BUILD = ("dataset", "build", PHOTOS, "photos", "--sizes", "24,30", "--cloud", "sandbox", "--json")


def hold(gate: Path) -> str:
    """Return a setup that lets the node of rank 1 begin only once there is `gate`."""
    return f'if [ "$ORCH_NODE_RANK" = 1 ]; then until [ -e {gate} ]; do sleep 0.2; done; fi'


def upload(world: World, folder: Path, prefix: str) -> str:
    """Put a folder into a bucket of its own, and return where it lies."""
    s3 = world.client("s3")
    s3.create_bucket(Bucket=prefix)
    for name, body in contents(folder).items():
        s3.put_object(Bucket=prefix, Key=f"set/{name}", Body=body)
    return f"s3://{prefix}/set"


def instance_of(world: World, run_id: str, rank: int) -> str | None:
    beacons = [key for key in world.keys(f"runs/{run_id}/nodes/") if key.endswith("beacon.json")]
    return next((key.split("/")[3] for key in beacons if json.loads(world.body(key))["rank"] == rank), None)


def objects(world: World, name: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = world.json("dataset", "show", name)["objects"]
    return found


def test_nodes_pack_what_one_machine_does_in_spite_of_a_lost_one_and_a_killed_command(world: World) -> None:
    world.orch("sandbox", "up")
    source = folders(world.home / "photos", 36, 12)
    (source / "train/n01/train_0010.JPEG").write_bytes(b"corrupt")
    assert upload(world, source, "photos") == PHOTOS
    refused = world.orch("dataset", "build", str(source), "photos", "--nodes", "2", check=2)
    assert "is not in S3" in refused.stderr
    assert world.json(*BUILD[:-1], "--nodes", "2", "--dry-run")["name"] == "build-photos"

    gate = world.home / "gate"
    order = (*BUILD, "--nodes", "2", "--max-cost", "3", "-y")
    process = world.start(*order, "--set", f"setup={hold(gate)}")
    run_id = wait_for("a run", lambda: next((r["run_id"] for r in world.json("status")), None))
    parts = wait_for("all that rank 0 packs", lambda: len(d := world.keys(f"runs/{run_id}/parts/done/")) == 8 and d)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    lost = wait_for("its beacon", lambda: instance_of(world, run_id, 0))
    world.orch("sandbox", "kill", lost)
    wait_for("another machine", lambda: len(world.instances(run_id)) == 3)
    gate.touch()
    lines = [json.loads(line) for line in world.orch(*order).stdout.splitlines()]
    built = lines[-1]
    assert (built["run_id"], built["state"]) == (run_id, "ready")
    assert [line.partition(": ")[0] for line in built["left_out"]] == ["train/n01/train_0010.JPEG"]
    assert {line["stage"] for line in lines if "stage" in line} == {"joining"}
    done = {int(key.split("/")[-1].removesuffix(".jsonl")) for key in parts}
    assert len(done) == 8
    logs = [world.orch("logs", run_id, "--node", rank).stdout for rank in "01"]
    packed = [line.split("part ")[1].split(":")[0] for log in logs for line in log.splitlines() if " to upload" in line]
    # The last words of the lost machine may be lost with it.
    assert len(packed) == len(set(packed)), "what it had packed was not packed again"
    assert {int(number) for number in packed} >= set(range(16)) - done
    assert world.keys(f"runs/{run_id}/parts/") == []
    bill = world.json("cost", run_id)
    assert len(bill["instances"]) == 3
    assert world.json("gc")["orphans"] == []

    (there,) = [json.loads(line) for line in world.orch(*order).stdout.splitlines()]
    assert (there["built"], there["version"], there["left_out"]) == (False, built["version"], built["left_out"])
    assert [row["run_id"] for row in world.json("status")] == [run_id], "nothing is launched for what is there"
    by_nodes = objects(world, "photos")
    world.orch("dataset", "rm", "photos", "-y")
    whole = json.loads(world.orch(*BUILD).stdout.splitlines()[-1])
    assert (whole["version"], objects(world, "photos")) == (built["version"], by_nodes)
    assert "run_id" not in whole


def test_tars_as_imagenet_has_them_with_labels_and_what_too_many_corrupt_images_end(world: World) -> None:
    tree = folders(world.home / "tree", 12, 6)
    (world.home / "tars").mkdir()
    source = upload(world, tars_of_tars(tree, world.home / "tars"), "tars")
    how = ("--sizes", "24", "--copies-only", "--val-labels", str(world.home / "tars/labels"))
    order = ("dataset", "build", source, "tars", *how, "--cloud", "sandbox", "--json")
    run_id = json.loads(world.orch(*order, "--nodes", "1", "-y", "--detach").stdout)["run_id"]
    world.orch("watch", run_id)
    done = world.orch("resume", run_id, "--json")
    built, by_nodes = json.loads(done.stdout.splitlines()[-1]), objects(world, "tars")
    assert (built["run_id"], built["built"]) == (run_id, True)
    again = json.loads(world.orch(*order, "--nodes", "1").stdout)
    assert (again["built"], again["version"]) == (False, built["version"])
    world.orch("dataset", "rm", "tars", "-y")
    whole = json.loads(world.orch(*order).stdout.splitlines()[-1])
    assert (whole["version"], objects(world, "tars")) == (built["version"], by_nodes)
    assert "train/images.bin" not in {item["path"] for item in by_nodes}

    (tree / "train/n01/train_0001.JPEG").write_bytes(b"corrupt")
    source = upload(world, tree, "corrupt")
    strict = ("dataset", "build", source, "corrupt", "--max-corrupt", "0", "--cloud", "sandbox")
    done = world.orch(*strict, "--nodes", "1", "-y", check=1)
    assert "1 of 18 images cannot be decoded, more than 0.00%: train/n01/train_0001.JPEG" in done.stderr
    assert "go on without them by a higher --max-corrupt" in done.stderr
    assert world.json("gc")["orphans"] == []
