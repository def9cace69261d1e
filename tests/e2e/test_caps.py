"""Runs whose `max_cost` is just above what their boot costs: each ends by itself, with a checkpoint, below it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.e2e.sandbox_world import World, kill_scheduler, phase, wait_for
from tests.e2e.stepping import beacon, launch, ledger, saved_steps, trains

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(900)]
# A gang whose money is out before this is not launched at all: 180 s.
SECONDS = 220


@pytest.fixture(scope="module")
def cap(world: World) -> Decimal:
    """What two nodes cost in `SECONDS`, of which booting, saving and ending take the most."""
    offer = world.json("plan", "--cloud", "sandbox", world.experiment("price", "true"))["offers"][0]
    return round(2 * Decimal(offer["price_usd"]) * SECONDS / 3600, 2)


@pytest.fixture(scope="module")
def alive(world: World, cap: Decimal) -> str:
    return launch(world, "alive", last=9, num_nodes=2, max_cost=str(cap))


@pytest.fixture(scope="module")
def dead(world: World, cap: Decimal, alive: str) -> str:
    found = launch(world, "dead", last=9, num_nodes=2, max_cost=str(cap))
    trains(world, found, 1)
    kill_scheduler(found)
    return found


def gone(world: World, run_id: str) -> bool:
    return {item["State"]["Name"] for item in world.instances(run_id)} == {"terminated"}


def charged(world: World, run_id: str) -> Decimal:
    return Decimal(world.json("sandbox", "meter", run_id)["usd"])


def test_with_its_scheduler_it_is_saved_and_ended_before_its_money_is_out(
    world: World, cap: Decimal, alive: str, dead: str
) -> None:
    wait_for("the cap ends it", lambda: phase(world, alive) == "capped", 400)
    assert 0 < charged(world, alive) < cap
    (end,) = (entry for entry in ledger(world, alive) if entry["action"] == "end")
    assert (
        end["detail"]["verdict"]["message"]
        == f"max_cost of ${cap} is near: saved at step {max(saved_steps(world, alive))}"
    )


def test_without_a_scheduler_its_nodes_save_and_end_themselves_before_its_money_is_out(
    world: World, cap: Decimal, dead: str
) -> None:
    wait_for("its nodes end", lambda: gone(world, dead), 400)
    assert 0 < charged(world, dead) < cap
    assert [entry for entry in ledger(world, dead) if entry["action"] in {"stop", "end", "terminate"}] == []
    first = next(b for b in (beacon(world, dead, i["InstanceId"]) for i in world.instances(dead)) if b["rank"] == 0)
    assert first["due"]
    assert first["stopped_step"] == first["checkpoint_step"] == max(saved_steps(world, dead))


def test_whoever_comes_later_finds_that_it_was_capped_and_goes_on_with_more_money(
    world: World, cap: Decimal, dead: str
) -> None:
    wait_for("its nodes end", lambda: gone(world, dead), 400)
    saved = max(saved_steps(world, dead))
    said = world.orch("resume", dead, check=6)
    assert f"the nodes' own timers were due: last checkpoint: step {saved}" in said.stderr
    assert "--max-cost DOLLARS" in said.stderr
    assert "give --max-cost" in world.orch("resume", dead, check=2).stderr
    world.orch("resume", dead, "--detach", "--max-cost", str(4 * cap))
    row = trains(world, dead, 2, after=saved)
    assert Decimal(row["max_cost_usd"]) == 4 * cap
    world.orch("stop", dead)
