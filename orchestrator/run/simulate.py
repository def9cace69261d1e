"""Many replays of a job under every policy: draws the chances, lets `core` do the rest, sums up."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.core import policies
from orchestrator.core.outcomes import Summary, best_of, summarise
from orchestrator.core.policies import NAMES, Job, Policy
from orchestrator.core.replay import Chance, replay
from orchestrator.core.traces import Prices, Rental, Sample, Traces, samples
from orchestrator.core.units import MicroUSD

# Draws per replay; a prime, so that no rhythm of a trace meets the same draw again and again.
LUCK = 97


@dataclass(frozen=True, slots=True)
class Simulation:
    """What to replay. `least` is the fewest nodes elastic policies train on; all times are whole seconds.

    `deadline` counts from the start of a run (None: there is none, nor the policy `auto`); each replay is watched for
    `horizon`, which is at most the length of the traces.
    """

    job: Job
    traces: Traces
    prices: Prices
    least: int
    deadline: int | None
    horizon: int
    replays: int
    seed: int
    policies: tuple[str, ...] = NAMES

    @property
    def starts(self) -> int:
        """How many different starts there are: samples that leave room for the horizon."""
        return (self.traces.seconds - self.horizon) // self.traces.gap + 1

    @property
    def on_demand_cost(self) -> MicroUSD:
        """What the job costs on-demand, boot included: what savings are measured against."""
        job = self.job
        return self.prices.charge(Rental(0, "on-demand", job.nodes, 0, job.boot + job.work))


def simulate(simulation: Simulation, on_progress: Callable[[str], None] = lambda _: None) -> tuple[Summary, ...]:
    """Return a summary for each policy and, where it stays in one, zone. Equal simulations give equal summaries."""
    chances = draw_chances(simulation)
    rows = policies_of(simulation)
    markets: dict[tuple[tuple[int, ...], bool], tuple[Sample, ...]] = {}
    found: list[Summary] = []
    for number, policy in enumerate(rows, start=1):
        on_progress(f"replaying {policy.name} ({number} of {len(rows)})")
        look = (policy.zones, policy.clocked)
        if look not in markets:
            markets[look] = samples(simulation.traces, simulation.prices, policy.zones, every=policy.clocked)
        found.append(_replay_all(simulation, policy, markets[look], chances))
    return _mark_best(found)


def draw_chances(simulation: Simulation) -> tuple[Chance, ...]:
    """Return a start in each of `replays` equal parts of the trace that leave room for the horizon, and its luck."""
    draw = random.Random(simulation.seed)  # noqa: S311 - repeatable by its seed, and guards nothing
    return tuple(
        Chance(
            int((index + draw.random()) * simulation.starts / simulation.replays) * simulation.traces.gap,
            tuple(draw.random() for _ in range(LUCK)),
        )
        for index in range(simulation.replays)
    )


def policies_of(simulation: Simulation) -> list[Policy]:
    """Return the policies that were asked for and can be, those of a single zone once for each."""
    nodes, zones = simulation.job.nodes, range(len(simulation.traces.zones))
    made = [
        *(policies.gang(nodes, zone) for zone in zones),
        policies.failover(nodes, zones),
        policies.replace(nodes, zones),
        *(policies.elastic(simulation.least, nodes, zone) for zone in zones),
        policies.elastic_failover(simulation.least, nodes, zones),
        policies.on_demand(nodes),
    ]
    if simulation.deadline is not None:
        made.append(policies.auto(simulation.job, simulation.deadline, simulation.traces.gap, zones))
    wanted = [policy for policy in made if policy.name in simulation.policies]
    return sorted(wanted, key=lambda policy: NAMES.index(policy.name))


def _replay_all(simulation: Simulation, policy: Policy, market: Sequence[Sample], chances: Sequence[Chance]) -> Summary:
    job, prices = simulation.job, simulation.prices
    outcomes = [replay(job, policy, market, chance, simulation.horizon) for chance in chances]
    costs = [sum(map(prices.charge, outcome.rentals)) for outcome in outcomes]
    return summarise(
        policy.name,
        simulation.traces.zones[policy.zones[0]] if policy.name in {"gang", "elastic"} else None,
        outcomes,
        costs,
        in_time_by=simulation.deadline or simulation.horizon,
        on_demand_cost=simulation.on_demand_cost,
    )


def _mark_best(found: Sequence[Summary]) -> tuple[Summary, ...]:
    best = {
        best_of([item for item in found if item.policy == policy])
        for policy in {item.policy for item in found if item.zone is not None}
    }
    return tuple(replace(item, best_zone=item in best) for item in found)
