"""Replays against timelines worked out by hand: a gap of 300 s, boot 100 s, restart 20 s, a checkpoint each 60 s."""

from __future__ import annotations

from dataclasses import replace as changed

import pytest

from orchestrator.core.outcomes import Summary, best_of, percentile, summarise
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
from orchestrator.core.traces import Prices, Rental, Traces, samples

GAP = 300
JOB = Job(work=700, nodes=4, boot=100, restart=20, checkpoint_every=60, notice=120)
SPOT, LISTED = 3_600_000, 36_000_000


def traces(*zones: list[int]) -> Traces:
    return Traces(tuple(f"zone-{index}" for index in range(len(zones))), GAP, tuple(map(tuple, zones)))


def flat(*prices: int) -> Prices:
    return Prices(GAP, tuple((price,) for price in prices), LISTED)


def play(
    policy: Policy, world: Traces, *, job: Job = JOB, prices: Prices | None = None, start: int = 0, horizon: int = 0
) -> Outcome:
    charged = prices or flat(*(SPOT for _ in world.zones))
    market = samples(world, charged, policy.zones, every=policy.clocked)
    return replay(job, policy, market, Chance(start), horizon or world.seconds - start)


def test_a_gang_waits_for_its_zone_and_trains_on_from_where_the_notice_found_it() -> None:
    # Up at 100, 500 done at 600, back at 900, up and loaded at 1020, the other 200 done at 1220.
    outcome = play(gang(4, 0), traces([4, 4, 0, 4, 4, 4]))
    assert outcome == Outcome(
        finished=True,
        seconds=1220,
        progress=700,
        lost=0,
        interruptions=1,
        starts=2,
        rentals=(Rental(0, "spot", 4, 0, 720), Rental(0, "spot", 4, 900, 1220)),
    )


def test_only_taken_nodes_are_paid_to_the_end_of_the_notice() -> None:
    outcome = play(gang(4, 0), traces([4, 4, 3, 4, 4, 4]))
    assert outcome.seconds == 1220
    assert outcome.rentals[:2] == (Rental(0, "spot", 1, 0, 720), Rental(0, "spot", 3, 0, 600))


@pytest.mark.parametrize("job", [changed(JOB, unannounced=1.0), changed(JOB, notice=0)])
def test_without_a_notice_the_work_since_the_last_checkpoint_is_done_again(job: Job) -> None:
    # 500 s after 100: the last checkpoint holds 480.
    outcome = play(gang(4, 0), traces([4, 4, 0, 4, 4, 4]), job=job)
    assert (outcome.seconds, outcome.lost) == (1240, 20)
    assert outcome.rentals[0].end == 600


def test_luck_decides_which_interruption_has_no_notice() -> None:
    job, world = changed(JOB, unannounced=0.5), traces([4, 4, 0, 4, 4, 4])
    market = samples(world, flat(SPOT), (0,))
    assert replay(job, gang(4, 0), market, Chance(0, (0.5,)), 1800).lost == 0
    assert replay(job, gang(4, 0), market, Chance(0, (0.49,)), 1800).lost == 20
    # The interruption is at 600, the sixth of seven draws again and again.
    assert replay(job, gang(4, 0), market, Chance(0, (0.9,) * 5 + (0.4, 0.9)), 1800).lost == 20


def test_what_is_taken_while_it_boots_has_done_nothing() -> None:
    outcome = play(gang(4, 0), traces([4, 0, 4, 4, 4, 4]), job=changed(JOB, boot=400))
    assert (outcome.seconds, outcome.starts, outcome.lost) == (600 + 400 + 700, 2, 0)


def test_a_replay_that_is_not_done_ends_at_its_horizon() -> None:
    outcome = play(gang(4, 0), traces([0, 4, 4, 4]), horizon=1000)
    assert not outcome.finished
    assert (outcome.seconds, outcome.progress) == (1000, 600)
    assert outcome.rentals == (Rental(0, "spot", 4, 300, 1000),)


def test_a_replay_may_begin_between_two_changes() -> None:
    outcome = play(gang(4, 0), traces([0, 4, 4, 4, 4, 0]), start=600)
    assert (outcome.seconds, outcome.rentals) == (800, (Rental(0, "spot", 4, 600, 1400),))


def test_failover_moves_at_once_to_the_cheapest_zone_with_room_for_all() -> None:
    world = traces([4, 4, 3, 3, 3], [0, 0, 4, 4, 4], [0, 0, 4, 4, 4])
    outcome = play(failover(4, range(3)), world, prices=flat(1, 3, 2))
    assert (outcome.seconds, outcome.starts) == (720 + 200, 2)
    assert outcome.rentals[-1] == Rental(2, "spot", 4, 600, 920)


def test_failover_stays_where_it_is_while_it_can() -> None:
    outcome = play(failover(4, range(2)), traces([4, 4, 4], [0, 4, 4]), prices=flat(2, 1))
    assert (outcome.seconds, outcome.rentals) == (800, (Rental(0, "spot", 4, 0, 800),))


def test_replace_keeps_a_majority_and_launches_only_what_is_missing() -> None:
    outcome = play(replace(4, range(1)), traces([4, 4, 3, 4, 4, 4]))
    assert outcome.seconds == 1220
    assert outcome.rentals == (
        Rental(0, "spot", 1, 0, 720),
        Rental(0, "spot", 1, 900, 1220),
        Rental(0, "spot", 3, 0, 1220),
    )


def test_replace_lets_a_minority_go_and_moves_when_another_zone_has_room() -> None:
    waits = play(replace(4, range(1)), traces([4, 4, 2, 4, 4, 4]))
    assert (2, 600) in {(item.nodes, item.end) for item in waits.rentals}
    moves = play(replace(4, range(2)), traces([4, 4, 3, 4, 4], [0, 0, 4, 4, 4]))
    assert (moves.seconds, moves.rentals[-1]) == (920, Rental(1, "spot", 4, 600, 920))


def test_elastic_goes_on_with_survivors_and_grows_while_they_train() -> None:
    # 500 done at 600; two nodes train from 620 at half speed; two more are launched at 900 and up at 1000, when 690 are
    # done; all load the checkpoint until 1020 and need another 10.
    outcome = play(elastic(2, 4, 0), traces([4, 4, 2, 4, 4]))
    assert (outcome.seconds, outcome.starts, outcome.interruptions) == (1030, 3, 1)
    assert outcome.rentals == (
        Rental(0, "spot", 2, 0, 720),
        Rental(0, "spot", 2, 900, 1030),
        Rental(0, "spot", 2, 0, 1030),
    )


def test_efficiency_bends_the_speed_of_fewer_nodes() -> None:
    outcome = play(elastic(1, 4, 0), traces([1] * 10), job=changed(JOB, efficiency=0.5))
    assert outcome.seconds == 100 + 1400


def test_nodes_that_still_boot_are_taken_before_those_that_train() -> None:
    # Growth launched at 300 would be up at 700; at 600 it is taken back, and nobody who trains notices.
    outcome = play(elastic(2, 4, 0), traces([2, 4, 2, 2, 2, 2, 2]), job=changed(JOB, boot=400, work=300))
    assert (outcome.seconds, outcome.starts, outcome.interruptions) == (400 + 600, 1, 1)
    assert outcome.rentals[0] == Rental(0, "spot", 2, 300, 720)


def test_elastic_waits_below_its_least_and_with_failover_goes_where_most_nodes_are() -> None:
    world = traces([4, 4, 1, 1, 1, 1], [0, 0, 2, 2, 2, 2], [0, 0, 3, 3, 3, 3])
    assert not play(elastic(2, 4, 0), world).finished
    outcome = play(elastic_failover(2, 4, range(3)), world, prices=flat(1, 1, 9))
    # Three of four nodes from 720 on: 200 of work take 266.67 s.
    assert (outcome.seconds, outcome.rentals[-1]) == (987, Rental(2, "spot", 3, 600, 987))


def test_elastic_with_failover_moves_for_the_whole_gang_but_not_for_a_larger_part() -> None:
    # 500 done at 600, half of 280 until 900 with two nodes; the other 60 on four from 1020 on.
    outcome = play(elastic_failover(2, 4, range(2)), traces([4, 4, 2, 2, 2], [0, 0, 3, 4, 4]))
    assert (outcome.seconds, outcome.starts) == (1080, 3)
    assert outcome.rentals == (
        Rental(0, "spot", 2, 0, 720),
        Rental(0, "spot", 2, 0, 900),
        Rental(1, "spot", 4, 900, 1080),
    )


def test_on_demand_takes_boot_and_work_and_costs_its_list_price() -> None:
    outcome = play(on_demand(4), traces([0] * 4))
    assert (outcome.seconds, outcome.interruptions) == (800, 0)
    assert outcome.rentals == (Rental(0, "on-demand", 4, 0, 800),)
    assert flat(SPOT).charge(outcome.rentals[0]) == 4 * 8_000_000


def test_auto_waits_then_buys_and_goes_back_to_spot_once_it_is_ahead() -> None:
    # At 0 on the line: wait. At 300 behind it: on-demand, up at 400. At 900 spot is back and 500 are done, more than
    # the line has in two switches (900 + 240) / 3 = 380: spot, up and loaded at 1020, the other 500 done at 1520.
    job, world = changed(JOB, work=1000), traces([0, 0, 0, 4, 4, 4, 4, 4, 4, 4])
    outcome = play(auto(job, 3000, GAP, (0,)), world, job=job)
    assert (outcome.seconds, outcome.interruptions) == (1520, 0)
    assert outcome.rentals == (Rental(0, "on-demand", 4, 300, 900), Rental(0, "spot", 4, 900, 1520))


def test_auto_stays_on_demand_until_two_switches_ahead() -> None:
    # As above with spot back at 600: 200 done, the line has (600 + 120) / 3.8 = 189 in one switch, but 221 in two.
    job, world = changed(JOB, work=1000), traces([0, 0, 4, 4, 4, 4, 4, 4, 4, 4])
    assert play(auto(job, 3800, GAP, (0,)), world, job=job).rentals[0] == Rental(0, "on-demand", 4, 300, 900)


@pytest.mark.parametrize(("unannounced", "enough"), [(0.0, 1540), (0.1, 1660)])
def test_auto_does_not_try_spot_when_time_is_short(unannounced: float, enough: int) -> None:
    # 1000 of work, a gap, and two switches of 120 each, or of 180 where a checkpoint interval may be lost as well.
    job, world = changed(JOB, work=1000, unannounced=unannounced), traces([4] * 6)
    assert play(auto(job, enough, GAP, (0,)), world, job=job).rentals == (Rental(0, "on-demand", 4, 0, 1100),)
    assert play(auto(job, enough + 1, GAP, (0,)), world, job=job).rentals == (Rental(0, "spot", 4, 0, 1100),)


def test_each_hour_costs_the_price_in_force_when_it_began() -> None:
    prices = Prices(1800, ((1_000_000, 5_000_000, 2_000_000, 7_000_000),), LISTED)
    # From 900: an hour at 1 $/h, then half an hour at the price in force at 4500, 2 $/h.
    assert prices.charge(Rental(0, "spot", 3, 900, 900 + 5400)) == 3 * (1_000_000 + 1_000_000)
    # From 0: 1 $/h in the first hour, 2 $/h in the second, 7 $/h in the third, the last price for good.
    assert prices.charge(Rental(0, "spot", 1, 0, 3 * 3600)) == 10_000_000
    # A minute is the least that is charged.
    assert prices.charge(Rental(0, "spot", 1, 0, 1)) == 16_667


def test_the_best_is_done_in_time_most_often_then_at_all_then_soonest() -> None:
    def row(zone: str, *seconds: int) -> Summary:
        outcomes = [Outcome(value < 5000, value, 700, 0, 0, 1, ()) for value in seconds]
        return summarise("gang", zone, outcomes, [1] * len(seconds), in_time_by=1000, on_demand_cost=1)

    slow, quick, late, never = row("a", 900, 900), row("b", 800, 800), row("c", 100, 2000), row("d", 100, 9000)
    assert best_of([never, late, slow, quick]) == quick
    assert best_of([never, late]) == late


def test_samples_leave_out_what_nobody_looks_at() -> None:
    world = traces([4, 4, 4, 2], [1, 2, 3, 3])
    assert [item.time for item in samples(world, flat(1, 2), (0,))] == [0, 900]
    assert [item.time for item in samples(world, flat(1, 2), (0, 1))] == [0, 300, 600, 900]
    assert len(samples(world, flat(1, 2), (0,), every=True)) == 4
    dearer = Prices(600, ((1, 3), (2, 2)), LISTED)
    assert [item.by_price for item in samples(traces([4] * 4, [4] * 4), dearer, (0, 1))] == [(0, 1), (1, 0)]


def test_percentiles_are_nearest_ranks_and_the_unfinished_are_the_last() -> None:
    assert [percentile([1, 2, 3, 4], p, 4) for p in (1, 25, 26, 50, 99)] == [1, 1, 2, 2, 4]
    assert percentile([1, 2], 50, 4) == 2
    assert percentile([1, 2], 51, 4) is None


def test_a_summary_counts_the_unfinished_as_dearer_than_all_others() -> None:
    done = Outcome(True, 800, 700, 10, 1, 2, ())
    late = Outcome(True, 1500, 700, 0, 3, 2, ())
    never = Outcome(False, 2000, 100, 0, 2, 2, ())
    found = summarise("x", None, [never, late, done], [1, 50, 40], in_time_by=1000, on_demand_cost=100)
    assert found.finished == pytest.approx(2 / 3)
    assert found.in_time == pytest.approx(1 / 3)
    assert found.seconds == (1500, None, None)
    assert found.cost == (50, None)
    assert found.saving == pytest.approx(0.5)
    assert found.interruptions == 2
    assert found.watched == pytest.approx(4300 / 3)
    assert found.useful == pytest.approx(1500 / 4300)
