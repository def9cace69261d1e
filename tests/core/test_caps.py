"""Caps: when a run is saved and ended, until when its nodes live, what users may ask for; against sums done by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import caps
from orchestrator.core.actions import Arm, End, Launch, Recover, Wish
from orchestrator.core.beacon import Beacon
from orchestrator.core.bill import make_bill
from orchestrator.core.caps import Caps, Spend
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.ledger import Recovery, Verdict
from orchestrator.core.volumes import DataVolume
from tests.core.worlds import Book, at, beacon, facts, instance, spec
from tests.report.views import LISTED, PRICES

PAIR = ("i-0", "i-1")
SHUT = {"end_reason": "Client.InstanceInitiatedShutdown"}


def launched() -> Book:
    return Book().tried(1, 0, "launched", ids=PAIR)


def training(seconds: float, armed: float | None = None, *, due: bool = False, **changes: Any) -> Facts:
    """Two nodes that train; their timers are armed for `armed` seconds after T0."""
    deadline = None if armed is None else at(armed).timestamp()
    said = [beacon(i, seconds=seconds, deadline=deadline, due=due) for i in range(2)]
    return facts(seconds, [instance(0), instance(1)], said, **changes)


def priced(seconds: float) -> Facts:
    """Two nodes with what they cost, as the scheduler adds it."""
    seen = training(seconds)
    spend = caps.spend_of(make_bill("run", seen.instances, PRICES, LISTED, seen.server_time), seen)
    return replace(seen, cost_so_far=spend.so_far, cost_per_second=spend.per_second, cost_prepaid=spend.prepaid)


@given(st.integers(0, 3500), st.integers(60, 3500))
def test_what_a_run_will_have_cost_is_what_its_bill_will_say(now: int, later: int) -> None:
    ahead = caps.cost_in(priced(now), timedelta(seconds=later))
    instances = training(now).instances
    then = make_bill("run", instances, PRICES, LISTED, at(now + later)).high
    # Above by no more than a second, and by S3 and disks, $0.07 an hour, which that bill has not or has already.
    assert then <= ahead <= then + 2 * 7_344_000 // 3600 + 20 * later


def test_the_cap_counts_the_minute_that_is_charged_anyway_only_once() -> None:
    # Two nodes at $7.344 an hour: a second costs $0.00408. Ten seconds after the launch 60 are charged.
    early = priced(10)
    assert early.cost_so_far == pytest.approx(60 * 4_080, rel=0.01)
    assert caps.cost_in(early, timedelta(seconds=110)) == pytest.approx(120 * 4_080, rel=0.02)
    assert caps.cost_in(early, timedelta(seconds=20)) == early.cost_so_far


def test_a_run_ends_while_its_grace_and_its_teardown_can_still_be_paid() -> None:
    # 20 s of grace and 75 s of teardown: with $1.00, which is 245 s, it ends at about 150 s.
    run = spec(max_cost="1", checkpoint_grace="20s")
    assert decide(run, launched().state, priced(145)) == ()
    assert decide(run, launched().state, priced(151)) == (Wish("stop", "max_cost of $1.00 is near"),)


def test_a_gang_whose_least_life_cannot_be_paid_is_not_launched() -> None:
    # 3 minutes of two nodes at $3.00 an hour cost $0.30, whatever the grace.
    for cap, launches in (("0.30", False), ("0.31", True)):
        run = spec(max_cost=cap, checkpoint_grace="10s")
        actions = decide(run, Book().state, facts(1))
        assert (actions != (Wish("stop", f"max_cost of ${cap} is near"),)) == launches


def test_what_it_costs_to_initialise_volumes_is_due_at_once_and_counts_before_a_launch() -> None:
    # Beside the $0.30 above two volumes of 150 GiB, initialised at 250 MiB/s: $0.90, and a fraction of a cent of gp3.
    volume = DataVolume("x", "snap-1", "0" * 16, 150, 140 * 2**30)
    for cap, launches in (("1.20", False), ("1.21", True)):
        run = replace(spec(max_cost=cap, checkpoint_grace="10s"), volumes=(volume,))
        actions = decide(run, Book().state, facts(1))
        assert (actions != (Wish("stop", f"max_cost of ${cap} is near"),)) == launches


def test_a_cap_that_users_asked_for_takes_the_place_of_the_experiments_through_a_resume() -> None:
    run, book = spec(max_cost="1", checkpoint_grace="20s"), launched()
    book.add("wish", "extend", 10, max_cost=3_000_000, max_duration=7_200)
    assert decide(run, book.state, priced(151)) == ()
    made = caps.in_force(run, book.state).experiment
    assert (made.max_cost_micro, made.max_duration) == (3_000_000, timedelta(hours=2))
    book.add("intent", "end", 200, verdict=Verdict("capped", "m").to_json()).add("outcome", "close", 210, generation=1)
    book.add("wish", "extend", 220, max_cost=9_000_000)
    assert caps.in_force(run, book.state).experiment.max_cost_micro == 3_000_000, "it had ended"
    book.add("wish", "resume", 300, max_cost=5_000_000)
    made = caps.in_force(run, book.state).experiment
    assert (made.max_cost_micro, made.max_duration) == (5_000_000, timedelta(hours=2))
    assert caps.in_force(run, Book().state) is run


def test_nodes_live_until_the_cap_or_the_deadline_whichever_is_first() -> None:
    assert caps.deadline(spec(), launched().state, priced(100)) == at(3600 + 600)
    # $1.00 is paid out 245 s after the launch (less what S3 costs); 30 s before that a machine must be told to end.
    ends = caps.deadline(spec(max_cost="1"), launched().state, priced(100))
    assert at(205) < ends < at(216)
    # Of $20 an hour's $14.76 are at a price that is known, the rest is reckoned at a quarter more: 1.28 hours.
    ends = caps.deadline(spec(max_cost="20", max_duration="3h"), launched().state, priced(100))
    assert at(3600 + 980) < ends < at(3600 + 1000)


@pytest.mark.parametrize(
    ("armed", "seconds", "arms"),
    [
        (4200, 100, False),  # as it should be
        (4000, 100, False),  # within a tenth of what is left
        (3700, 100, False),  # too early, but a good part of a minute would be lost now
        (3700, 110, True),  # 4090 s are left: ten more than whole minutes
        (230, 100, True),  # the training would soon be stopped: at once
        (4700, 100, True),  # too late: at once
        (None, 100, False),  # an agent that does not say
    ],
)
def test_timers_that_are_wrong_are_armed_anew_and_no_others(armed: float | None, seconds: float, arms: bool) -> None:
    actions = decide(spec(), launched().state, training(seconds, armed))
    assert actions == ((Arm(PAIR, 1, at(4200)),) if arms else ())


def test_no_timer_is_armed_twice_at_once_nor_on_a_node_that_is_done_or_going() -> None:
    state = launched().state
    assert decide(spec(), state, training(100, 230, arming=frozenset(PAIR))) == ()
    assert decide(spec(), state, training(100, 230, arming=frozenset({"i-0"}))) == (Arm(("i-1",), 1, at(4200)),)
    done = beacon(0, "exited", 100, exit_code=0, deadline=at(230).timestamp())
    other = beacon(1, seconds=100, deadline=at(230).timestamp())
    seen = facts(100, [instance(0), instance(1)], [done, other])
    assert caps.rearm(spec(), state, Gang.of(state, seen), seen) == (Arm(("i-1",), 1, at(4200)),)


def timed(index: int, stage: Any = "exited", **changes: Any) -> Beacon:
    made = beacon(index, stage, 1200, due=True, exit_code=75, synced=True, stopped_step=40)
    return replace(made, **({"checkpoint_step": 40} if index == 0 else {}) | changes)


def test_a_gang_that_its_own_timers_ended_is_capped_and_says_what_was_saved() -> None:
    run = spec(max_duration="20m")
    gone = [instance(i, "terminated", end_time=at(1240), **SHUT) for i in range(2)]
    seen = facts(1300, gone, [timed(0), timed(1)], recorded={"i-0": "terminated", "i-1": "terminated"})
    (end,) = decide(run, launched().state, seen)
    assert isinstance(end, End)
    assert (end.verdict.kind, "last checkpoint: step 40" in end.verdict.message) == ("capped", True)
    assert "orch resume --max-cost DOLLARS" in end.verdict.hint
    both = [instance(0), instance(1)]
    (end,) = decide(run, launched().state, facts(1202, both, [timed(0), timed(1)]))
    assert isinstance(end, End)
    assert (end.verdict.kind, "saved at step 40" in end.verdict.message) == ("capped", True), "before they went, too"


def test_what_still_saves_when_the_first_timer_fires_is_waited_for() -> None:
    gone = instance(1, "terminated", end_time=at(1200), **SHUT)
    seen = facts(1202, [instance(0), gone], [timed(0, "running", synced=False), timed(1)])
    assert not [a for a in decide(spec(max_duration="20m"), launched().state, seen) if isinstance(a, End | Recover)]


def test_timers_that_fired_although_there_was_more_to_spend_are_a_loss_like_any_other() -> None:
    gone = [instance(i, "terminated", end_time=at(1240), **SHUT) for i in range(2)]
    seen = facts(1300, gone, [timed(0), timed(1)], recorded={"i-0": "terminated", "i-1": "terminated"})
    (recover,) = decide(spec(), launched().state, seen)
    assert isinstance(recover, Recover)
    assert (recover.recovery.missing, recover.recovery.kept) == (2, {})
    # Nothing costs anything any more, but a gang of two does: at $3.00, for two minutes of grace and 75 s, $0.33.
    for cap, goes_on in (("2.32", False), ("2.33", True)):
        (action,) = decide(spec(max_cost=cap), launched().state, replace(seen, cost_so_far=2_000_000))
        assert isinstance(action, Recover) == goes_on


def test_nothing_is_launched_for_a_recovery_that_the_cap_would_stop_at_once() -> None:
    # One of two is missing: three minutes and 15 s of it, at $3.00 an hour, cost $0.16.
    lost = Recovery(1, "lost", "m", {"i-0": 0}, (), 1, 0, graceful=False, trained=True, size=2)
    state = launched().add("intent", "recover", 100, **lost.to_json()).state
    seen = facts(101, [instance(0)], [beacon(0, seconds=101)], cost_so_far=2_000_000)
    for cap, launches in (("2.16", False), ("2.17", True)):
        actions = decide(spec(max_cost=cap), state, seen)
        assert any(isinstance(action, Launch) for action in actions) == launches
        assert (actions == (Wish("stop", f"max_cost of ${cap} is near"),)) != launches


def test_a_cap_that_was_near_and_timers_that_fired_meanwhile_are_a_cap() -> None:
    book = launched().add("wish", "stop", 1150, reason="max_cost of $60.00 is near", cap=True)
    gone = [instance(i, "terminated", end_time=at(1240), **SHUT) for i in range(2)]
    seen = facts(1300, gone, [timed(0), timed(1)], recorded={"i-0": "terminated", "i-1": "terminated"})
    (end,) = decide(spec(), book.state, seen)
    assert isinstance(end, End)
    assert end.verdict.message == "max_cost of $60.00 is near: last checkpoint: step 40"


SPEND = Spend(so_far=2_000_000, per_second=4_000, prepaid=0)


def faults(seconds: float, *, book: Book | None = None, **asked: Any) -> list[str]:
    state = (book or launched()).state
    return caps.extend_faults(spec(checkpoint_grace="45s"), state, SPEND, at(seconds), Caps(**asked))


def test_caps_are_refused_with_every_reason_at_once() -> None:
    # It is saved in two minutes, which cost $0.48.
    assert faults(100, max_cost=2_480_001, max_duration=timedelta(seconds=221)) == []
    assert faults(100, max_cost=2_480_000, max_duration=timedelta(seconds=220)) == [
        "max_cost: $2.48 is too little: it has cost $2.00, and $2.48 when it is saved",
        "max_duration: 3m40s is too little: it has lasted 1m40s, and 3m40s when it is saved",
    ]
    stopping = launched().add("wish", "stop", 90, reason="r")
    assert faults(100, book=stopping, max_cost=1) == [
        "it is being saved and ended already; when that is done it can be resumed",
        "max_cost: $0.0000 is too little: it has cost $2.00, and $2.48 when it is saved",
    ]
    over = launched().add("intent", "end", 60, verdict=Verdict("capped", "m").to_json())
    over.add("outcome", "close", 70, generation=1)
    assert faults(100, book=over, max_cost=9_000_000) == ["it has ended: capped"]


def test_a_run_ended_by_its_cap_is_resumed_only_with_a_higher_one() -> None:
    # Two nodes at $3.00 an hour for three minutes: $0.30.
    capped = spec(max_cost="2.30")
    (fault,) = caps.resume_faults(capped, SPEND, Caps())
    assert fault.startswith("max_cost: $2.30 is too little: it has cost $2.00, and $2.3")
    assert caps.resume_faults(capped, SPEND, Caps(max_cost=2_500_000)) == []
    assert caps.resume_faults(spec(), SPEND, Caps()) == []
    (fault,) = caps.resume_faults(spec(), SPEND, Caps(max_duration=timedelta(seconds=9)))
    assert fault == "max_duration: 9s is too little: it has 2m00s to save"


@pytest.mark.parametrize(
    ("cost", "seconds", "said"),
    [
        (49_000_000, 60, []),
        (50_000_000, 60, ["has cost $50.00, 50% of max_cost $100.00"]),
        (94_000_000, 60, ["has cost $94.00, 80% of max_cost $100.00"]),
        (1, 3500, ["has lasted 58m20s, 95% of max_duration 1h00m"]),
        (
            99_000_000,
            1800,
            ["has cost $99.00, 95% of max_cost $100.00", "has lasted 30m00s, 50% of max_duration 1h00m"],
        ),
    ],
)
def test_caps_are_warned_of_at_50_80_and_95_percent(cost: int, seconds: float, said: list[str]) -> None:
    found = caps.warnings(spec(max_cost="100"), launched().state, cost, at(seconds))
    assert [item.text for item in found] == said
