"""A rank that hangs in a run that does not say how long is too long: found by the pace the training has shown."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.sandbox_world import World, wait_for
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
