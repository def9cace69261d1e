"""A slice of the seeds (`scripts/sim` runs thousands): whatever goes wrong in a run, the invariants hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.faults import CALLS, EVENTS
from tests.sim.invariants import GAPS, Violation
from tests.sim.run import HALF_AN_HOUR, Outcome, run_to_end, simulate, swarm_world
from tests.sim.world import World

CHUNK = 20
CHUNKS = 6


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_invariant_holds_in_every_seed(chunk: int) -> None:
    outcomes = [simulate(seed) for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK)]
    assert all(outcome.nodes >= 4 and outcome.seconds >= HALF_AN_HOUR for outcome in outcomes)
    assert sum(count(outcome) for outcome in outcomes) / CHUNK >= 3


def count(outcome: Outcome) -> int:
    return sum(outcome.faults.values())


def test_a_seed_runs_the_same_way_each_time() -> None:
    first, second = swarm_world(7), swarm_world(7)
    for world in (first, second):
        run_to_end(world)
    assert first.entries == second.entries
    assert first.truth.trouble == second.truth.trouble
    assert first.clock.now == second.clock.now


def test_values_that_are_not_guarded_change_nothing_but_the_time() -> None:
    thawed = (
        "from tests.sim.run import simulate; from tests.sim.thaw import thaw; thaw()\n"
        "from orchestrator.core.facts import Volume; Volume('vol-1', 8, 'gp3').size_gib = 9\n"
        "print([simulate(seed) for seed in range(4)])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", thawed], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout == f"{[simulate(seed) for seed in range(4)]}\n", done.stderr


def test_the_swarm_holds_every_kind_of_fault_and_no_seed_holds_all() -> None:
    swarms = [swarm_world(seed).swarm for seed in range(60)]
    kinds = [set(swarm.rates) | {kind for _, kind in swarm.moments} for swarm in swarms]
    assert set().union(*kinds) == set(CALLS) | set(EVENTS)
    assert not any(kind >= set(CALLS) | set(EVENTS) for kind in kinds)
    assert len({frozenset(kind) for kind in kinds}) > 50


def test_only_gaps_that_are_named_are_passed_over() -> None:
    assert not GAPS, "a gap is a promise that is not kept yet: none may be added lightly"


def test_a_failure_names_its_seed() -> None:
    def kill_the_timers(world: World) -> None:
        world.node_rules.timer = False

    with pytest.raises(Violation) as caught:
        for seed in range(100):
            simulate(seed, change=kill_the_timers)
    assert any("scripts/sim 1 " in note for note in caught.value.__notes__)
