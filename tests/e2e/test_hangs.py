"""What hangs without a word: a rank of a run that does not say how long is too long, a machine before it ever spoke."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestrator.core.ids import Keys
from tests.e2e.sandbox_world import World, kill_scheduler, wait_for
from tests.e2e.stepping import has_ended, kinds, launch, node_of, recoveries, row, steps, trains
from tests.e2e.test_recovery import trainer

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(900)]


def test_a_rank_that_hangs_without_a_stall_timeout_is_found_by_the_silence_of_all(world: World) -> None:
    world.orch("sandbox", "up")
    run_id = launch(world, "stuck", last=2, num_nodes=2)
    trains(world, run_id, 1, after=25)
    os.kill(trainer(world, node_of(world, run_id, 1)), signal.SIGSTOP)
    wait_for("the silence was noticed", lambda: recoveries(world, run_id), 600)
    has_ended(world, run_id)
    assert row(world, run_id)["phase"] == "finished"
    assert kinds(world, run_id) == [("failed", 0)]
    assert {line["generation"] for line in steps(world, run_id)} == {1, 2}
    assert "no rank wrote anything for 5m" in recoveries(world, run_id)[0]["detail"]["cause"]


def kill_at_launch(ec2: Any, name: str) -> str:
    """Kill the scheduler of a run once it has machines, long before they have booted; return the first of them."""
    wanted = [
        {"Name": "tag:orch:run", "Values": [f"{name}-*"]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    while not (found := ec2.describe_instances(Filters=wanted)["Reservations"]):
        time.sleep(0.05)
    first = found[0]["Instances"][0]
    kill_scheduler(next(tag["Value"] for tag in first["Tags"] if tag["Key"] == "orch:run"))
    return str(first["InstanceId"])


def test_a_machine_that_hangs_before_its_first_word_is_replaced_and_the_others_wait_no_longer(world: World) -> None:
    world.orch("sandbox", "up")
    # Nobody schedules the run until the machine hangs, so that it does so between its boot and its start.
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill_at_launch, world.client("ec2"), "mute")
        run_id = launch(world, "mute", last=2, num_nodes=4, preflight="auto")
        mute = killing.result()
    wait_for("it has booted", lambda: world.keys(Keys(run_id).host_key(mute)))
    world.orch("sandbox", "disturb", mute, "freeze")
    world.orch("resume", run_id, "--detach")
    wait_for("it is missed", lambda: recoveries(world, run_id), 600)
    has_ended(world, run_id)
    assert row(world, run_id)["phase"] == "finished"
    (lost,) = recoveries(world, run_id)
    assert f"({mute}) has not been heard since it was told to start, nor does it answer SSH" in lost["detail"]["cause"]
    assert len(lost["detail"]["kept"]) == 3
    assert len(world.instances(run_id)) == 5
    (told,) = [row for row in world.json("doctor", run_id) if row["unfit"]]
    assert (told["instance_id"], told["generation"]) == (mute, 1)
    assert {row["generation"] for row in world.json("status", run_id, "--timing") if row["instance_id"] == mute} == {1}
    assert "begins anew" not in world.orch("logs", run_id).stdout, "nothing was trained before"
