"""A launch that waits for room: every zone refuses it once, on the real sandbox."""

from __future__ import annotations

import pytest

from tests.e2e.sandbox_world import World, wait_for
from tests.e2e.stepping import has_ended, row

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(300)]


def test_a_launch_that_finds_no_room_says_so_and_asks_again(world: World) -> None:
    world.orch("sandbox", "up")
    file = world.experiment("patient", "echo here", capacity_wait="5m")
    offers = len(world.json("plan", "--cloud", "sandbox", file)["offers"])
    world.orch("sandbox", "fault", "RunInstances", "InsufficientInstanceCapacity", "--count", str(offers))
    world.orch("launch", "--cloud", "sandbox", "-y", "--detach", file)
    run_id = world.run_id("patient")
    text = "waiting for capacity for 2 nodes, next try at "
    wait_for("it waits", lambda: row(world, run_id)["message"].startswith(text))
    assert world.instances(run_id) == []
    has_ended(world, run_id)
    assert (row(world, run_id)["phase"], len(world.instances(run_id))) == ("finished", 2)
