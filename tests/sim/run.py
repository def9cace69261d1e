"""One seed from beginning to end: half an hour of faults, then none, until the run is closed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.core.bill import Bill, make_bill
from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import Facts
from orchestrator.core.plan import Market, make_plan
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import usd
from orchestrator.run.observe import merge
from tests.core import worlds
from tests.sim import invariants
from tests.sim.faults import Swarm
from tests.sim.market import ON_DEMAND, TYPE
from tests.sim.training import Script
from tests.sim.world import World

# A run has a deadline, so that it must have ended by then; virtual seconds.
LIMIT = 6 * 3600.0
HALF_AN_HOUR = 1800.0
RESUMES = 2
# No scheduler is paused, no command under way for longer.
LATE = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a seed ended: its `faults` by kind, virtual `seconds`, and how often a known gap was `passed_over`."""

    seed: int
    nodes: int
    faults: Mapping[str, int]
    seconds: float
    generations: int
    verdict: str
    passed_over: Mapping[str, int]


def make_spec(
    world: World,
    *,
    num_nodes: int,
    max_duration: int,
    cap: float | None,
    policy: str,
    least: int | None = None,
    expected: str | None = None,
) -> RunSpec:
    """Return the spec of a run as `orch launch` would plan it in this market; `cap` is in shares of its full cost.

    `least` nodes will do, None: no fewer than all. `expected` is how long it takes, where the user says.
    """
    values: dict[str, Any] = {
        "name": "tiny",
        "num_nodes": num_nodes,
        "min_nodes": least,
        "expected_duration": expected,
        "resources": {"any_of": [{"instance_type": TYPE}]},
        "run": "train",
        "max_duration": f"{max_duration}m",
        "spot_policy": policy,
    }
    if cap is not None:
        price = max(ON_DEMAND if policy == "on-demand" else world.market.price(zone, 0) for zone in worlds.ZONES)
        values["max_cost"] = usd(round(cap * num_nodes * price * max_duration / 60))
    experiment = Experiment.from_json(values)
    subnets = {zone: f"subnet-{zone}" for zone in worlds.ZONES}
    market = Market({TYPE: worlds.ZONES}, world.market.history(0), world.market.on_demand(), {}, subnets, {TYPE: 64})
    plan = make_plan(experiment, num_nodes, market)
    del values["num_nodes"]
    return replace(worlds.spec(num_nodes, plan.offers, **values), timer=plan.timer)


def swarm_world(seed: int, gaps: Mapping[str, str] | None = None) -> World:
    """Return the world of a seed, faults and all, with nothing started in it."""
    rng = random.Random(seed * 7919 + 1)  # noqa: S311 - a seed, not a secret
    swarm = Swarm.draw(rng)
    num_nodes = rng.choice([4, 4, 5, 8])
    policy = rng.choice(["spot", "spot", "auto", "on-demand"])
    cap = rng.uniform(0.3, 1.2) if rng.random() < 0.3 else None
    duration = rng.choice([30, 45, 60])
    least = rng.choice([None, None, None, 1, num_nodes // 2, num_nodes - 1])
    expected = rng.choice([None, "5m", "15m", "40m"])

    def spec(world: World) -> RunSpec:
        return make_spec(
            world,
            num_nodes=num_nodes,
            max_duration=duration,
            cap=cap,
            policy=policy,
            least=least,
            expected=expected,
        )

    world = World(seed, spec, swarm)
    world.script = Script(
        steps=rng.choice([300, 900, 2400]),
        every=rng.choice([60.0, 120.0, 300.0]),
        save=rng.uniform(0.5, 8),
        staging=rng.uniform(2, 60),
        setup=rng.uniform(1, 60),
        upload=rng.uniform(1, 50),
        looks=rng.random() < 0.85,
        breaks_at=rng.randrange(10, 900) if rng.random() < 0.04 else None,
    )
    if world.script.breaks_at is not None:
        world.truth.hurts = {generation: {"script broke"} for generation in range(1, 9)}
    if gaps is not None:
        world.checks.gaps = gaps
    return world


def simulate(
    seed: int, *, change: Callable[[World], object] = lambda _: None, gaps: Mapping[str, str] | None = None
) -> Outcome:
    """Run a seed to its end. Raises Violation, or whatever production raised that it should not have."""
    world = swarm_world(seed, gaps)
    change(world)
    try:
        run_to_end(world)
    except Exception as error:
        error.add_note(f"seed {seed}: `scripts/sim 1 {seed}` runs it again")
        raise
    return Outcome(
        seed,
        world.spec.num_nodes,
        dict(world.swarm.happened),
        world.clock.now,
        world.state.generation,
        world.state.verdict.kind if world.state.verdict else "",
        dict(world.checks.passed_over),
    )


def run_to_end(world: World) -> None:
    """Start a scheduler, let the faulty time pass, then see the run to its end; a user resumes it a time or two.

    What comes late (a command under way, a scheduler that wakes up) must find a run that has ended as it should.
    """
    world.start_scheduler()
    horizon = world.swarm.until
    asked = 0
    while world.run_until(horizon, lambda: world.state.closed):
        if asked == RESUMES or not world.ask_resume() or world.state.closed:
            break
        asked += 1
    world.run_until(horizon)
    see_to_the_end(world)


def see_to_the_end(world: World) -> None:
    """End all faults, let the run come to its end and everything that is late arrive, and judge what is left."""
    calm(world)
    world.run_until(max(LIMIT, world.clock.now + LIMIT), lambda: world.state.closed)
    world.run_until(world.clock.now + LATE)
    world.checks.step(world)
    facts = last_facts(world)
    world.checks.judge("termination_truth", invariants.termination_truth(world))
    world.checks.judge("stable", invariants.stable(world, facts))
    world.checks.judge("budget", invariants.budget(world))
    world.checks.judge("final_bill_is_bound", invariants.final_bill_is_bound(world, last_bill(world, facts)))


def calm(world: World) -> None:
    """End all faults, and see to it that somebody schedules."""
    world.swarm.until = 0.0
    world.store.down_until = world.expired_until = 0.0
    world.full.clear()
    world.tight.clear()
    if not world.state.closed and not world.living:
        world.start_scheduler()


def last_facts(world: World) -> Facts:
    """Return what the records in S3 say: all that is left of a closed run."""
    records = world.store.records
    return Facts(
        world.store.server_time(),
        merge((), records.values()),
        dict(world.store.nodes),
        tuple(world.ec2.resources.values()),
        {key: item.state for key, item in records.items()},
    )


def last_bill(world: World, facts: Facts) -> Bill:
    """Return the bill as `orch cost` prints it afterwards."""
    rows = world.market.history(world.clock.now)
    return make_bill(world.spec.run_id, facts.instances, rows, world.market.on_demand(), facts.server_time)
