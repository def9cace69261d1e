"""Runs that lose machines and go on: notices, hosts killed and hung, failures, no room; on real hosts."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.sandbox_world import World, kill_scheduler, phase, wait_for

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(400)]
TRAINING = Path(__file__).with_name("steps.py").read_text()
INTERVAL = 10


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    try:
        made.orch("sandbox", "up")
        yield made
    finally:
        made.close()


def launch(world: World, name: str, *, last: int, fail_at: int = 0, **keys: Any) -> str:
    """Launch the training of `steps.py` and return the run's id."""
    command = f"python3 steps.py {last} {fail_at} {INTERVAL}"
    file = world.experiment(name, command, workdir=".", checkpoint_grace="20s", **({"num_nodes": 4} | keys))
    (Path(file).parent / "steps.py").write_text(TRAINING)
    world.orch("launch", "--cloud", "sandbox", "-y", "--detach", file)
    return world.run_id(name)


def row(world: World, run_id: str) -> dict[str, Any]:
    return next(item for item in world.json("status") if item["run_id"] == run_id)


def trains(world: World, run_id: str, generation: int, after: int = 0) -> dict[str, Any]:
    """Wait until a generation has made steps beyond `after`, and return the run's row."""

    def look() -> dict[str, Any] | None:
        seen = row(world, run_id)
        far = (seen["metrics"].get("generation"), seen["metrics"].get("step", 0))
        return seen if seen["phase"] == "running" and far[0] == generation and far[1] > after else None

    found: dict[str, Any] = wait_for(f"generation {generation} trains", look, 120)
    return found


def ledger(world: World, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(world.body(key)) for key in sorted(world.keys(f"runs/{run_id}/ledger/"))]


def recoveries(world: World, run_id: str) -> list[dict[str, Any]]:
    return [entry for entry in ledger(world, run_id) if entry["action"] == "recover"]


def steps(world: World, run_id: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in world.body(f"runs/{run_id}/metrics.jsonl").splitlines()]
    return [line for line in lines if "weight" in line]


def beacon(world: World, run_id: str, instance_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.body(f"runs/{run_id}/nodes/{instance_id}/beacon.json"))
    return found


def node_of(world: World, run_id: str, rank: int) -> str:
    """Return the instance that has a rank in the newest generation."""
    living = [item["InstanceId"] for item in world.instances(run_id) if item["State"]["Name"] == "running"]
    said = [beacon(world, run_id, instance_id) for instance_id in living]
    newest = max(item["generation"] for item in said)
    return str(next(i["instance_id"] for i in said if (i["generation"], i["rank"]) == (newest, rank)))


def processes(world: World, instance_id: str) -> list[int]:
    hosts = world.json("sandbox", "status")["hosts"]
    return next(host["pids"] for host in hosts if host["instance_id"] == instance_id)


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@dataclass
class Told:
    """What was done to the runs of this module, and when (Unix seconds)."""

    noticed: str = ""
    killed: str = ""
    killed_at: float = 0.0
    hung: str = ""
    hung_at: float = 0.0
    taken: str = ""
    story: str = ""
    unseen: str = ""
    buggy: str = ""


@pytest.fixture(scope="module")
def told(world: World) -> Told:
    """Three runs side by side, since most of their time is waiting. `story` meets a notice, then a kill."""
    made = Told(story=launch(world, "story", last=3))
    made.unseen = launch(world, "unseen", last=3)
    made.buggy = launch(world, "buggy", last=2, fail_at=25, num_nodes=2)
    trains(world, made.story, 1, after=12)
    made.noticed = node_of(world, made.story, 2)
    world.orch("sandbox", "interrupt", made.noticed, "--after", "45")
    _unseen(world, made)
    trains(world, made.story, 2, after=60)
    made.killed, made.killed_at = node_of(world, made.story, 0), time.time()
    world.orch("sandbox", "kill", made.killed)
    for run_id in (made.story, made.unseen, made.buggy):
        has_ended(world, run_id)
    return made


def has_ended(world: World, run_id: str) -> None:
    wait_for(f"{run_id} has ended", lambda: phase(world, run_id) in {"finished", "failed", "no-capacity"}, 120)


def _unseen(world: World, made: Told) -> None:
    """Hang a host, then take one while no scheduler is there to see it."""
    trains(world, made.unseen, 1, after=12)
    made.hung, made.hung_at = node_of(world, made.unseen, 1), time.time()
    for pid in processes(world, made.hung):
        os.kill(pid, signal.SIGSTOP)
    trains(world, made.unseen, 2)
    kill_scheduler(made.unseen)
    made.taken = node_of(world, made.unseen, 3)
    world.orch("sandbox", "kill", made.taken)
    world.orch("resume", "--detach", made.unseen)


def kinds(world: World, run_id: str) -> list[tuple[str, int]]:
    return [(entry["detail"]["kind"], entry["detail"]["missing"]) for entry in recoveries(world, run_id)]


def test_what_was_lost_was_replaced_and_nothing_else_and_all_is_gone_in_the_end(world: World, told: Told) -> None:
    assert kinds(world, told.story) == [("interrupted", 1), ("interrupted", 1)]
    assert kinds(world, told.unseen) == [("lost", 1), ("interrupted", 1)]
    assert kinds(world, told.buggy) == [("failed", 0)]
    for run_id, launched in ((told.story, 6), (told.unseen, 6), (told.buggy, 2)):
        assert row(world, run_id)["phase"] == "finished"
        instances = world.instances(run_id)
        assert (len(instances), {item["State"]["Name"] for item in instances}) == (launched, {"terminated"})
        assert len({item["Placement"]["AvailabilityZone"] for item in instances}) == 1
    assert world.json("gc")["orphans"] == []


def test_a_notice_costs_no_step_and_the_checkpoint_is_in_s3_in_time(world: World, told: Told) -> None:
    first = [line["step"] for line in steps(world, told.story) if line["generation"] == 1]
    second = [line["step"] for line in steps(world, told.story) if line["generation"] == 2]
    assert first + second == list(range(1, second[-1] + 1)), "every step once"
    manifest = f"runs/{told.story}/checkpoints/{first[-1]}/MANIFEST.json"
    saved = world.client("s3").head_object(Bucket=world.bucket(), Key=manifest)["LastModified"].timestamp()
    assert saved <= seconds(beacon(world, told.story, told.noticed)["notice"]) - 30


def test_a_kill_without_notice_costs_at_most_one_checkpoint_interval(world: World, told: Told) -> None:
    found = recoveries(world, told.story)[1]
    assert seconds(found["time"]) - told.killed_at < 10
    lines = steps(world, told.story)
    last = max(line["step"] for line in lines if line["generation"] == 2)
    again = min(line["step"] for line in lines if line["generation"] == 3)
    assert last - again < INTERVAL
    assert sorted(found["detail"]["kept"].values()) == [1, 2, 3]
    weights = {line["step"]: line["weight"] for line in lines}
    weight = 1
    for step in range(1, max(weights) + 1):
        weight = (weight * 31 + step) % 1_000_003
        # The last lines of a host that was killed may not have come to S3.
        assert weights.get(step, weight) == weight


def test_a_hung_host_is_found_by_its_silence_and_one_taken_unseen_by_the_next_scheduler(
    world: World, told: Told
) -> None:
    hung, taken = recoveries(world, told.unseen)
    assert told.hung in hung["detail"]["cause"]
    assert "silent" in hung["detail"]["cause"]
    assert told.taken in taken["detail"]["cause"]
    assert hung["epoch"] < taken["epoch"]


def test_a_failure_is_tried_again_on_the_same_machines_from_the_last_checkpoint(world: World, told: Told) -> None:
    (found,) = recoveries(world, told.buggy)
    assert "node 1" in found["detail"]["cause"]
    lines = steps(world, told.buggy)
    assert min(line["step"] for line in lines if line["generation"] == 2) == 21
    assert "rank 1 found a bad sample" in world.orch("logs", told.buggy, "--node", "1").stdout


def test_an_advice_costs_nothing_and_without_room_beside_the_survivors_the_gang_moves(world: World) -> None:
    run_id = launch(world, "mover", last=2, num_nodes=3)
    trains(world, run_id, 1, after=12)
    instances = world.instances(run_id)
    zone = instances[0]["Placement"]["AvailabilityZone"]
    world.orch("sandbox", "rebalance", node_of(world, run_id, 2))
    wait_for("an early checkpoint", lambda: any(step % INTERVAL for step in saved_steps(world, run_id)), 30)
    assert row(world, run_id)["phase"] == "running", "and training goes on"
    world.orch("sandbox", "fault", "RunInstances", "InsufficientInstanceCapacity", "--zone", zone)
    world.orch("sandbox", "kill", node_of(world, run_id, 1))
    has_ended(world, run_id)
    assert row(world, run_id)["phase"] == "finished"
    zones = [item["Placement"]["AvailabilityZone"] for item in world.instances(run_id)]
    assert (len(zones), zones.count(zone)) == (6, 3)
    lines = steps(world, run_id)
    assert min(line["step"] for line in lines if line["generation"] == 2) > 10, "it went on from a checkpoint"


def saved_steps(world: World, run_id: str) -> list[int]:
    keys = world.keys(f"runs/{run_id}/checkpoints/")
    return [int(key.split("/")[3]) for key in keys if key.endswith("/MANIFEST.json")]
