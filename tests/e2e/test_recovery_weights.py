"""The trainer under torchrun, interrupted three times, beside the same one left alone: the same weights, bit by bit."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch

from tests.e2e.sandbox_world import World, phase, wait_for
from tests.e2e.stepping import has_ended, kinds, node_of, row, trains
from tests.trainer.test_trainer_runs import assert_same

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(900)]
NODES = 3
RUN = (
    "torchrun $ORCH_TORCHRUN_ARGS -m trainer imagenet18 --data $ORCH_DATA_DIR/imagenet --scale sandbox"
    " --checkpoint-seconds 2 --log-every 1"
    # Two images at a time: a step takes long enough for somebody on a busy machine to see it.
    " --micro-batch 2"
)


@pytest.fixture(scope="module")
def world(world: World) -> World:
    world.orch("sandbox", "up")
    return world


def launch(world: World, name: str) -> str:
    launched = ["launch", "--cloud", "sandbox", "-y", "--detach", "--name", name, "--nodes", str(NODES)]
    world.orch(*launched, "--set", f"run={RUN}", "imagenet18", timeout=400)
    return world.run_id(name)


def final(world: World, run_id: str) -> tuple[int, dict[str, Any]]:
    """Return the step and the state of a run's last checkpoint."""
    found = [key.split("/") for key in world.keys(f"runs/{run_id}/checkpoints/") if key.endswith("/MANIFEST.json")]
    step = max(int(parts[3]) for parts in found)
    body = world.body(f"runs/{run_id}/checkpoints/{step}/state.pt")
    return step, torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)


def test_the_weights_of_a_run_interrupted_three_times_are_those_of_one_left_alone(world: World) -> None:
    alone = launch(world, "alone")
    wait_for("it has ended", lambda: phase(world, alone) in {"finished", "failed"}, 300)
    assert row(world, alone)["phase"] == "finished"
    broken = launch(world, "broken")
    for generation, step, rank, how in ((1, 4, 0, "kill"), (2, 10, 1, "kill"), (3, 16, 2, "interrupt")):
        trains(world, broken, generation, after=step)
        world.orch("sandbox", how, node_of(world, broken, rank), *(["--after", "60"] if how == "interrupt" else []))
        wait_for("it recovers", lambda: phase(world, broken) == "recovering", 30)
    has_ended(world, broken)
    assert row(world, broken)["phase"] == "finished", row(world, broken)
    assert kinds(world, broken) == [("interrupted", 1)] * 3
    assert len(world.instances(broken)) == NODES + 3
    (steps, ours), (expected, theirs) = final(world, broken), final(world, alone)
    assert steps == expected
    assert_same(ours, theirs)
    begun = [json.loads(line) for line in world.body(f"runs/{broken}/metrics.jsonl").splitlines()]
    assert [line["event"] for line in begun if line.get("event") in {"resumed", "finished"}] == ["resumed"] * 3 + [
        "finished"
    ]
