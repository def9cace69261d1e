"""Every effect of a run without faults, each spoiled once in four ways: the world ends as if nothing had been.

After Sieve (OSDI 2022): a scheduler that crashes before or after any single effect, one that then sees an old view, and
one that misses what happens meanwhile. A new scheduler comes half a minute after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from orchestrator.core.ids import Keys
from orchestrator.core.manifest import NAME
from tests.sim import run
from tests.sim.training import Script
from tests.sim.truth import Crash
from tests.sim.world import World

WAYS = ("crash before", "crash after", "stale view", "missed view")
SCRIPT = Script(steps=90, every=40, save=2, staging=5, setup=5, upload=4)
LEASE = "s3:lease.json"


@dataclass(frozen=True)
class End:
    """What is left of a run, and what it took. `trained`: the newest step that has a manifest."""

    verdict: str
    generation: int
    machines: int
    unrecorded: tuple[str, ...]
    launches: int
    trained: int
    resources: int


def play(crash: Crash | None = None) -> World:
    """Return the world of a run of four nodes in which nothing but `crash` goes wrong."""
    world = World(1, lambda w: run.make_spec(w, num_nodes=4, max_duration=30, cap=0.9, policy="spot"))
    world.swarm.until = 0.0
    world.script = SCRIPT
    world.crash = crash
    world.start_scheduler()
    world.run_until(3600.0, lambda: world.state.closed)
    world.ec2.lag = lambda what: 0.0
    run.see_to_the_end(world)
    return world


def end_of(world: World) -> End:
    keys = Keys(world.spec.run_id)
    verdict = world.state.verdict
    machines = world.ec2.machines.values()
    return End(
        verdict.kind if verdict else "",
        world.state.generation,
        len(machines),
        tuple(m.id for m in machines if m.alive or world.store.records[m.id].state != "terminated"),
        len(world.state.launches),
        max(int(key.split("/")[-2]) for key in world.store.keys(keys.checkpoints) if key.endswith(NAME)),
        len(world.ec2.resources),
    )


@pytest.fixture(scope="module")
def golden() -> World:
    return play()


def test_the_golden_run_finishes_with_everything_it_should_leave(golden: World) -> None:
    assert end_of(golden) == End("finished", 1, 4, (), 1, SCRIPT.steps, 0)
    kinds = {label.partition("-")[0] for label in golden.labels}
    assert kinds == {"s3:lease.json", "s3:ledger", "s3:record"} | {
        f"ec2:{what}" for what in ("create", "launch", "terminate", "delete")
    } | {"ssh:start"}


@pytest.mark.parametrize("how", WAYS)
def test_a_run_ends_the_same_whatever_happens_at_any_one_effect(golden: World, how: str) -> None:
    wanted = end_of(golden)
    leases = [at for at, label in enumerate(golden.labels) if label == LEASE]
    # One renewal of the lease is like another: the first ones, the last, and one in four between.
    passed_over = set(leases[2:-1]) - set(leases[2:-1:4])
    for at, label in enumerate(golden.labels):
        if at in passed_over:
            continue
        world = play(Crash(at, how))
        assert len(world.labels) > at, f"{how} {at}: {label} never came"
        assert end_of(world) == wanted, f"{how} {at}: {label}"
