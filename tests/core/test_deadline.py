"""`spot_policy: auto` with a deadline: when on-demand is asked for, when a run waits for spot. From facts alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.actions import Launch
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts
from orchestrator.core.ledger import LedgerState
from orchestrator.core.spec import RunSpec
from orchestrator.core.uniform import AHEAD, BEHIND, TIGHT, by_deadline
from tests.core.gangs import four, recovered, taken, verdict_of, world
from tests.core.worlds import ZONES, Book, beacon, facts, offer, spec

OFFERS = [offer(zone) for zone in ZONES] + [offer(zone, 24_480_000, lifecycle="on-demand") for zone in ZONES]


def auto(**keys: Any) -> RunSpec:
    """Two hours of work, done by a deadline of four."""
    times = {"expected_duration": "2h", "max_duration": "4h", "checkpoint_grace": "2m"}
    return spec(4, OFFERS, spot_policy="auto", **(times | keys))


def after(minutes: float, done: float, gone: int = 4) -> Facts:
    """All four, or the first of them, were taken just now; a share of the work is done and saved."""
    seconds = 60 * minutes
    said = [beacon(i, seconds=seconds, progress={"step": 1, "steps": 1000}) for i in range(4)]
    said[0] = replace(said[0], checkpoint_step=round(1000 * done))
    return world(seconds, [taken(i, seconds - 1) for i in range(gone)], said)


@pytest.mark.parametrize(
    ("minutes", "done", "wanted"),
    [
        (0, 0.0, AHEAD),
        (1, 0.0, BEHIND),
        (60, 0.30, AHEAD),
        (60, 0.25, BEHIND),
        (108, 0.0, TIGHT),
        (107, 0.0, BEHIND),
        (168, 0.5, TIGHT),
        (236, 1.0, TIGHT),
    ],
)
def test_the_line_of_uniform_progress_decides(minutes: float, done: float, wanted: tuple[str, ...]) -> None:
    assert by_deadline(auto().experiment, done, timedelta(minutes=minutes)) == wanted


def test_without_a_known_duration_or_with_another_policy_no_deadline_decides() -> None:
    for run in (auto(expected_duration=None), spec(4, expected_duration="2h"), auto(resources=ON_DEMAND)):
        assert by_deadline(run.experiment, 0.0, timedelta(hours=3)) is None


ON_DEMAND = {"instance_type": "p3.16xlarge", "use_spot": False}


def moved(minutes: float, done: float) -> tuple[Book, Facts]:
    """A gang that lost everything, the place of the interruption last."""
    book, seen = four(), after(minutes, done)
    recovered(book, seen, auto())
    return book, seen


def refuse(book: Book, offers: tuple[int, ...], seconds: float, first: int = 1) -> LedgerState:
    for attempt, index in enumerate(offers, first):
        book.tried(attempt, index, "no-capacity", generation=2, seconds=seconds)
    return book.state


def test_ahead_of_the_line_a_run_waits_for_spot_and_behind_it_buys_on_demand() -> None:
    book, seen = moved(60, 0.3)
    assert decide(auto(), book.state, seen) == (Launch(2, 1, 1),)
    refuse(book, (1, 2, 0), 3600)
    assert decide(auto(), book.state, replace(seen, server_time=after(60.4, 0.3).server_time)) == ()
    later = replace(seen, server_time=after(60.5, 0.3).server_time)
    assert decide(auto(), book.state, later) == (Launch(2, 4, 1),), "spot is asked for again"
    refuse(book, (1, 2, 0), 3630, first=4)
    behind = replace(seen, server_time=after(71.5, 0.3).server_time)
    assert decide(auto(), book.state, behind) == (Launch(2, 7, 4),), "on-demand, where it was not interrupted"


def test_a_run_ahead_waits_longer_than_its_patience_and_one_behind_does_not() -> None:
    book, seen = moved(60, 0.4)
    state = refuse(book, (1, 2, 0), 3600)
    hurried = auto(capacity_wait="1s")
    assert decide(hurried, state, replace(seen, server_time=after(60.2, 0.4).server_time)) == ()
    book, seen = moved(60, 0.2)
    state = refuse(book, (1, 2, 0, 4, 5, 3), 3600)
    assert verdict_of(decide(hurried, state, seen)).kind == "no-capacity"


def test_when_time_is_just_enough_on_demand_comes_first_and_spot_is_better_than_nothing() -> None:
    book, seen = moved(110, 0.0)
    assert decide(auto(), book.state, seen) == (Launch(2, 1, 4),)
    refuse(book, (4, 5, 3), 6600)
    assert decide(auto(), book.state, seen) == (Launch(2, 4, 1),)


def test_beside_survivors_the_lost_node_is_replaced_by_what_the_deadline_asks_for() -> None:
    for minutes, done, asks in ((60, 0.3, (0,)), (60, 0.1, (0, 3)), (110, 0.0, (3, 0))):
        book, seen = four(), after(minutes, done, gone=1)
        assert recovered(book, seen, auto()).asks == asks
        for attempt, index in enumerate(asks, 1):
            launches = [a for a in decide(auto(), book.state, seen) if isinstance(a, Launch)]
            assert launches == [Launch(2, attempt, index, count=1)]
            book.tried(attempt, index, "no-capacity", generation=2, count=1, seconds=60 * minutes)
        assert book.state.moved


def test_spares_of_a_gang_behind_are_asked_for_as_spot_and_on_demand_in_turn() -> None:
    book, run = four(), auto(min_nodes=2)
    seen = after(60, 0.1, gone=1)
    recovered(book, seen, run)
    book.tried(1, 0, "no-capacity", generation=2, count=1, seconds=3600, spare=True)
    later = replace(seen, server_time=after(60.5, 0.1).server_time)
    assert Launch(2, 2, 3, count=1, spare=True) in decide(run, book.state, later)


def test_a_launch_with_little_slack_begins_on_demand() -> None:
    tight = auto(max_duration="2h10m")
    assert decide(tight, LedgerState(), facts(0)) == (Launch(1, 1, 3),)
    assert decide(auto(), LedgerState(), facts(0)) == (Launch(1, 1, 0),)
