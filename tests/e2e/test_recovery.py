"""Runs that lose machines and go on: notices, hosts killed and hung, failures, no room; on real hosts."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.core.units import to_micro
from tests.e2e.sandbox_world import Elsewhere, World, kill_scheduler, scheduler, wait_for
from tests.e2e.stepping import (
    INTERVAL,
    beacon,
    early,
    has_ended,
    kinds,
    launch,
    node_of,
    processes,
    recoveries,
    row,
    saved_steps,
    seconds,
    steps,
    trains,
)

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def world(world: World) -> World:
    world.orch("sandbox", "up")
    return world


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
    mover: str = ""
    elastic: str = ""
    outlook: str = ""
    lines: str = ""
    denied: str = ""


@pytest.fixture(scope="module")
def elsewhere(world: World) -> Iterator[Elsewhere]:
    """A machine that launched none of the runs."""
    made = Elsewhere.of(world)
    try:
        yield made
    finally:
        for folder in (made.home / "runs").glob("*"):
            if pid := scheduler(folder.name):
                os.kill(pid, signal.SIGKILL)
        made.close()


@pytest.fixture(scope="module")
def told(world: World, elsewhere: Elsewhere) -> Told:
    """Five runs side by side, since most of their time is waiting. `story` meets a notice, then a kill."""
    made = Told(elastic=launch(world, "elastic", last=3, num_nodes="2..3", spot_policy="auto"))
    made.story = launch(world, "story", last=3)
    made.mover = launch(world, "mover", last=2, num_nodes=3)
    made.unseen = launch(world, "unseen", last=3)
    made.buggy = launch(world, "buggy", last=3, fail_at=25, num_nodes=2, stall_timeout="12s")
    trains(world, made.buggy, 2)
    os.kill(trainer(world, node_of(world, made.buggy, 1)), signal.SIGSTOP)
    _shrink(world, made)
    trains(world, made.story, 1, after=12)
    made.noticed = node_of(world, made.story, 2)
    world.orch("sandbox", "interrupt", made.noticed, "--after", "45")
    _move(world, made)
    _unseen(world, elsewhere, made)
    trains(world, made.story, 2, after=60)
    made.killed, made.killed_at = node_of(world, made.story, 0), time.time()
    world.orch("sandbox", "kill", made.killed)
    for run_id in (made.story, made.unseen, made.buggy, made.mover, made.elastic):
        has_ended(world, run_id)
    return made


def _shrink(world: World, made: Told) -> None:
    """Take a node where there is no room for another at first. No other run launches anything meanwhile."""
    trains(world, made.elastic, 1, after=12)
    zone = world.instances(made.elastic)[0]["Placement"]["AvailabilityZone"]
    world.orch("sandbox", "fault", "RunInstances", "InsufficientInstanceCapacity", "--zone", zone)
    world.orch("sandbox", "kill", node_of(world, made.elastic, 1))

    def refused() -> str:
        message = str(row(world, made.elastic)["message"])
        return message if "next try" in message else ""

    made.outlook = wait_for("there is no room for another", refused)


def _move(world: World, made: Told) -> None:
    """Give a node advice; then take one where EC2 has no more room. No other run launches anything meanwhile."""
    trains(world, made.mover, 1, after=12)
    world.orch("sandbox", "rebalance", node_of(world, made.mover, 2))
    wait_for("it was asked for", lambda: early(world, made.mover))
    trains(world, made.mover, 1, after=early(world, made.mover)[0])
    trains(world, made.story, 2)
    zone = world.instances(made.mover)[0]["Placement"]["AvailabilityZone"]
    world.orch("sandbox", "fault", "RunInstances", "InsufficientInstanceCapacity", "--zone", zone)
    world.orch("sandbox", "kill", node_of(world, made.mover, 1))


def _unseen(world: World, elsewhere: Elsewhere, made: Told) -> None:
    """Hang a host, then take one while no scheduler is there to see it; another machine goes on with the run."""
    trains(world, made.unseen, 1, after=12)
    made.hung, made.hung_at = node_of(world, made.unseen, 1), time.time()
    for pid in processes(world, made.hung):
        os.kill(pid, signal.SIGSTOP)
    trains(world, made.unseen, 2)
    kill_scheduler(made.unseen)
    made.taken = node_of(world, made.unseen, 3)
    world.orch("sandbox", "kill", made.taken)
    world.orch("sandbox", "fault", "SendSSHPublicKey", "AccessDeniedException")
    made.denied = elsewhere.orch("resume", "--detach", made.unseen, check=4).stderr
    elsewhere.orch("resume", "--detach", made.unseen)
    made.lines = elsewhere.orch("ssh", made.unseen, "--node", "0", "--", "echo from elsewhere").stdout


def trainer(world: World, instance_id: str) -> int:
    """Return the process of the training on a host."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in processes(world, instance_id)}
    return next(pid for pid, words in commands.items() if b"steps.py" in words)


def test_what_was_lost_was_replaced_and_nothing_else_and_all_is_gone_in_the_end(world: World, told: Told) -> None:
    assert kinds(world, told.story) == [("interrupted", 1), ("interrupted", 1)]
    assert kinds(world, told.unseen) == [("lost", 1), ("interrupted", 1)]
    assert kinds(world, told.buggy) == [("failed", 0), ("failed", 0)]
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


def test_another_machine_goes_on_with_a_run_it_did_not_launch_by_a_key_of_its_own(
    world: World, elsewhere: Elsewhere, told: Told
) -> None:
    assert "from elsewhere" in told.lines
    assert "these credentials need the permission ec2-instance-connect:SendSSHPublicKey" in told.denied
    keys = [item.home / "runs" / told.unseen / "id_ed25519" for item in (world, elsewhere)]
    assert len({key.read_text() for key in keys}) == 2
    assert not (elsewhere.home / "sandbox").exists()
    bill = world.json("cost", told.unseen)
    assert bill == elsewhere.json("cost", told.unseen)
    assert Decimal(bill["spot_usd_high"]) >= Decimal(world.json("sandbox", "meter", told.unseen)["usd"])


def test_a_failure_is_tried_again_on_the_same_machines_from_the_last_checkpoint(world: World, told: Told) -> None:
    found = recoveries(world, told.buggy)[0]
    assert "node 1" in found["detail"]["cause"]
    lines = steps(world, told.buggy)
    assert min(line["step"] for line in lines if line["generation"] == 2) == 21
    assert "rank 1 found a bad sample" in world.orch("logs", told.buggy, "--node", "1").stdout


def test_a_rank_that_hangs_is_found_by_the_steps_that_do_not_come(world: World, told: Told) -> None:
    found = recoveries(world, told.buggy)[1]
    assert "no step for 12s" in found["detail"]["cause"]
    assert set(found["detail"]["kept"].values()) == {0, 1}


def test_an_advice_is_an_early_checkpoint_and_training_goes_on(world: World, told: Told) -> None:
    (asked,) = early(world, told.mover)
    assert asked in saved_steps(world, told.mover)
    first = [line["step"] for line in steps(world, told.mover) if line["generation"] == 1]
    assert first[-1] > asked
    assert first == list(range(1, len(first) + 1))


def test_without_room_beside_the_survivors_the_whole_gang_trains_in_another_zone(world: World, told: Told) -> None:
    assert row(world, told.mover)["phase"] == "finished"
    assert kinds(world, told.mover) == [("interrupted", 1)]
    zones = Counter(item["Placement"]["AvailabilityZone"] for item in world.instances(told.mover))
    assert sorted(zones.values()) == [3, 3]
    assert min(line["step"] for line in steps(world, told.mover) if line["generation"] == 2) > 10, "from a checkpoint"


def test_a_gang_that_may_vary_trains_on_with_fewer_and_grows_at_a_step_when_there_is_room(
    world: World, told: Told
) -> None:
    assert row(world, told.elastic)["phase"] == "finished"
    assert told.outlook.startswith("goes on with 2 of 3 nodes, waiting for capacity, next try at ")
    assert kinds(world, told.elastic) == [("interrupted", 0), ("grown", 0)]
    lines = steps(world, told.elastic)
    assert {line["generation"]: line["nodes"] for line in lines} == {1: 3, 2: 2, 3: 3}
    later = [line["step"] for line in lines if line["generation"] > 1]
    assert later == list(range(later[0], later[0] + len(later))), "it grew at a step, and none was lost"
    assert len(world.instances(told.elastic)) == 4


def test_a_run_behind_its_deadline_buys_what_spot_has_not_and_the_bill_has_each_at_its_price(
    world: World, told: Told
) -> None:
    bought = {item["InstanceId"]: item.get("InstanceLifecycle", "on-demand") for item in world.instances(told.elastic)}
    assert sorted(bought.values()) == ["on-demand", "spot", "spot", "spot"]
    for line in world.json("cost", told.elastic)["instances"]:
        prices = {to_micro(hour["price_usd"]) for hour in line["hours"]}
        assert (prices == {24_480_000}) == (bought[line["instance_id"]] == "on-demand")
