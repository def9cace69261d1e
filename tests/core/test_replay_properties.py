"""What must hold of replays on any traces."""

from __future__ import annotations

from dataclasses import replace as changed
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.bill import bill_instance
from orchestrator.core.facts import OnDemandPrice, PriceRow
from orchestrator.core.policies import (
    Job,
    Policy,
    auto,
    elastic,
    elastic_failover,
    failover,
    gang,
    on_demand,
    replace,
)
from orchestrator.core.replay import Chance, Outcome, replay
from orchestrator.core.traces import Prices, Traces, samples
from tests.core.worlds import T0, instance

GAP, NODES, ZONES, LISTED = 300, 4, 3, 36_000_000
ZONE = st.lists(st.integers(0, NODES), min_size=30, max_size=30)
WORLDS = st.lists(ZONE, min_size=ZONES, max_size=ZONES).map(
    lambda zones: Traces(("a", "b", "c"), GAP, tuple(map(tuple, zones)))
)
PRICES = st.lists(
    st.lists(st.integers(1, 9_999_999), min_size=5, max_size=5).map(tuple), min_size=ZONES, max_size=ZONES
).map(lambda series: Prices(1800, tuple(series), LISTED))
JOBS = st.builds(
    Job,
    work=st.integers(1, 6000),
    nodes=st.just(NODES),
    boot=st.integers(0, 700),
    restart=st.integers(0, 200),
    checkpoint_every=st.integers(1, 600),
    notice=st.sampled_from([0, 120]),
    unannounced=st.sampled_from([0.0, 0.5, 1.0]),
    efficiency=st.sampled_from([0.5, 1.0]),
)
LUCK = (0.2, 0.7, 0.4)


def everyone(job: Job) -> list[Policy]:
    zones = range(ZONES)
    return [
        gang(NODES, 0),
        failover(NODES, zones),
        replace(NODES, zones),
        elastic(2, NODES, 0),
        elastic_failover(2, NODES, zones),
        on_demand(NODES),
        auto(job, job.work + job.boot + 1000, GAP, zones),
    ]


def play(job: Job, policy: Policy, world: Traces, prices: Prices, horizon: int | None = None) -> Outcome:
    market = samples(world, prices, policy.zones, every=policy.clocked)
    return replay(job, policy, market, Chance(0, LUCK), horizon or world.seconds)


def time_of(outcome: Outcome) -> float:
    return outcome.seconds if outcome.finished else float("inf")


@settings(max_examples=50)
@given(WORLDS, PRICES, JOBS)
def test_each_rental_costs_what_the_bill_of_its_instances_says(world: Traces, prices: Prices, job: Job) -> None:
    rows = [
        PriceRow(name, "p3.16xlarge", T0 + timedelta(seconds=1800 * index), price)
        for name, series in zip(world.zones, prices.spot, strict=True)
        for index, price in enumerate(series)
    ]
    listed = {"p3.16xlarge": OnDemandPrice("p3.16xlarge", LISTED, "test", T0)}
    for policy in everyone(job):
        for rental in play(job, policy, world, prices).rentals:
            machine = changed(
                instance(0, "terminated", end_time=T0 + timedelta(seconds=rental.end)),
                zone=world.zones[rental.zone],
                lifecycle=rental.lifecycle,
                launch_time=T0 + timedelta(seconds=rental.start),
            )
            assert prices.charge(rental) == rental.nodes * bill_instance(machine, rows, listed, T0).usd


def second_by_second(job: Job, world: Traces, prices: Prices) -> int | None:
    """Return when failover is done, walked through in the plainest way there is."""
    abrupt = job.unannounced == 1 or not job.notice
    zone: int | None = None
    done = stint = begin = 0
    for second in range(world.seconds):
        if second % GAP == 0:
            room = [index for index in range(ZONES) if world.capacity[index][second // GAP] >= NODES]
            if zone is not None and zone not in room:
                zone, done = None, done - (stint % job.checkpoint_every if abrupt else 0)
            if zone is None and room:
                zone, stint = min(room, key=lambda index: (prices.at(index, second), index)), 0
                begin = second + job.boot + (job.restart if done else 0)
        if zone is not None and second >= begin:
            done, stint = done + 1, stint + 1
            if done == job.work:
                return second + 1
    return None


@settings(max_examples=50)
@given(WORLDS, PRICES, JOBS)
def test_a_replay_ends_when_a_walk_second_by_second_does(world: Traces, prices: Prices, job: Job) -> None:
    job = changed(job, unannounced=round(job.unannounced))
    outcome = play(job, failover(NODES, range(ZONES)), world, prices)
    assert (outcome.seconds if outcome.finished else None) == second_by_second(job, world, prices)


@settings(max_examples=50)
@given(WORLDS, PRICES, JOBS)
def test_no_policy_holds_what_a_zone_does_not_have_or_more_than_the_job_asks_for(
    world: Traces, prices: Prices, job: Job
) -> None:
    for policy in everyone(job):
        outcome = play(job, policy, world, prices)
        notice = job.notice
        for index in range(len(world.capacity[0])):
            moment = index * GAP
            held = [0] * ZONES
            for item in outcome.rentals:
                # What is within its notice is no longer used: it is gone for the zone.
                if item.lifecycle == "spot" and item.start <= moment < item.end - notice:
                    held[item.zone] += item.nodes
            assert all(nodes <= world.capacity[zone][index] for zone, nodes in enumerate(held))
            assert sum(held) <= NODES


@settings(max_examples=50)
@given(WORLDS, PRICES, JOBS)
def test_time_and_work_add_up(world: Traces, prices: Prices, job: Job) -> None:
    for policy in everyone(job):
        outcome = play(job, policy, world, prices)
        assert outcome.progress + outcome.lost <= outcome.seconds + 1e-6
        assert outcome.finished == (outcome.progress >= job.work - 1e-3)
        assert all(rental.end >= rental.start for rental in outcome.rentals)
        if not job.unannounced and job.notice:
            assert outcome.lost == 0


@given(WORLDS, PRICES, JOBS)
def test_on_demand_takes_exactly_boot_and_work(world: Traces, prices: Prices, job: Job) -> None:
    outcome = play(job, on_demand(NODES), world, prices, 10_000)
    assert (outcome.seconds, outcome.finished, outcome.starts) == (job.boot + job.work, True, 1)


@settings(max_examples=50)
@given(WORLDS, PRICES, JOBS)
def test_without_overhead_more_freedom_is_never_slower(world: Traces, prices: Prices, job: Job) -> None:
    job = changed(job, boot=0, restart=0, notice=120, unannounced=0.0)

    def time(policy: Policy) -> float:
        return time_of(play(job, policy, world, prices))

    zones = range(ZONES)
    gangs = [time(gang(NODES, zone)) for zone in zones]
    whole = time(failover(NODES, zones))
    assert all(time(elastic(2, NODES, zone)) <= gangs[zone] for zone in zones)
    assert whole <= min(gangs)
    assert time(replace(NODES, zones)) == whole
    assert time(elastic_failover(2, NODES, zones)) <= whole


# No deadline lies beyond the traces: after their last sample nobody is asked any more.
@given(WORLDS, PRICES, JOBS, st.integers(0, 2000))
def test_auto_is_done_by_any_deadline_that_on_demand_keeps(world: Traces, prices: Prices, job: Job, slack: int) -> None:
    deadline = job.boot + job.work + slack
    outcome = play(job, auto(job, deadline, GAP, range(ZONES)), world, prices, 20_000)
    assert outcome.finished
    assert outcome.seconds <= deadline
