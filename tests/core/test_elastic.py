"""Gangs that may vary in size: how they are launched, train on with fewer, and grow again. From facts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.actions import Action, Kill, Launch, Start, Stop, Terminate
from orchestrator.core.decide import decide
from orchestrator.core.elastic import GROW_EVERY
from orchestrator.core.facts import Facts, Node
from orchestrator.core.gang import Gang
from orchestrator.core.phase import find_phase
from tests.core.gangs import FOUR, ended, four, recovered, recovery_of, taken, verdict_of, world
from tests.core.worlds import Book, at, beacon, facts, instance, spec

VARIES = spec(4, min_nodes=2)
SPARE = Launch(2, 1, 0, count=1, spare=True)


def with_spare(seen: Facts, *, ready: bool = True, name: str = "i-9", **changes: Any) -> Facts:
    """Return the facts with a spare that boots, or has booted."""
    spare = instance(int(name[2:]), launch_index=0, **changes)
    node = Node(("key",)) if ready else Node()
    return replace(seen, instances=(*seen.instances, spare), nodes={**seen.nodes, name: node})


def shrunk() -> Book:
    """A gang that lost node 1 and goes on as generation 2, with a spare on its way."""
    book = four()
    recovered(book, world(60, [taken(1, 59)]), VARIES)
    return book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=61, spare=True)


def training(seconds: float, ids: Sequence[int] = (0, 2, 3), generation: int = 2) -> Facts:
    """The three that are left train in generation 2, with steps."""
    said = [
        replace(beacon(i, seconds=seconds, generation=generation, progress={"step": 50}), rank=rank)
        for rank, i in enumerate(ids)
    ]
    return world(seconds, [taken(1, 59)], said)


def test_survivors_that_are_enough_start_at_once_and_what_is_missing_is_launched_beside_them() -> None:
    book, seen = four(), world(60, [taken(1, 59)])
    found = recovered(book, seen, VARIES)
    assert (found.kept, found.missing, found.size) == ({"i-0": 0, "i-2": 2, "i-3": 3}, 0, 4)
    assert decide(VARIES, book.state, seen) == (Kill(("i-0", "i-2", "i-3"), 1), SPARE)
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=61, spare=True)
    stopped = with_spare(world(65, [taken(1, 59)], [ended(i, 65) for i in (0, 2, 3)]), ready=False)
    ranks = {"i-0": 0, "i-3": 1, "i-2": 2}
    assert dict(Gang.of(book.state, stopped).ranks) == ranks, "who can keeps its rank"
    assert decide(VARIES, book.state, stopped) == (Start(("i-0", "i-3", "i-2"), ranks, 2),)


def test_the_gang_grows_at_a_step_once_the_spare_has_booted() -> None:
    book = shrunk()
    assert decide(VARIES, book.state, with_spare(training(100), ready=False)) == (), "it boots"
    loading = [beacon(i, seconds=100, generation=2, started=at(70).timestamp()) for i in (0, 2, 3)]
    started = with_spare(world(100, [taken(1, 59)], loading))
    assert decide(VARIES, book.state, started) == (), "no step was made yet"
    seen = with_spare(training(200))
    found = recovered(book, seen, VARIES)
    assert (found.kind, found.graceful, found.going, found.missing, found.size) == ("grown", True, (), 0, 3)
    assert set(found.kept) == {"i-0", "i-2", "i-3", "i-9"}
    assert decide(VARIES, book.state, seen) == (Stop("i-0", 2),)
    assert decide(VARIES, book.state, replace(seen, stops_sent=frozenset({2}))) == (), "it saves itself"
    saved = with_spare(
        world(210, [taken(1, 59)], [replace(ended(i, 210), generation=2, stopped_step=60) for i in (0, 2, 3)])
    )
    (start,) = decide(VARIES, book.state, saved)
    assert isinstance(start, Start)
    assert sorted(start.ranks.values()) == [0, 1, 2, 3]
    assert (start.ranks["i-0"], start.generation) == (0, 3)
    assert find_phase(book.state, saved) == "recovering"
    assert not book.state.spares


def test_it_grows_once_by_all_that_are_on_their_way() -> None:
    gone, book = [taken(1, 59), taken(2, 59)], four()
    recovered(book, world(60, gone), VARIES)
    book.tried(1, 0, "launched", ids=["i-8", "i-9"], generation=2, count=2, least=1, seconds=61, spare=True)
    said = [replace(beacon(i, seconds=200, generation=2, progress={"step": 9}), rank=i // 3) for i in (0, 3)]
    one = with_spare(with_spare(world(200, gone, said)), ready=False, name="i-8")
    assert decide(VARIES, book.state, one) == ()
    assert set(recovery_of(decide(VARIES, book.state, with_spare(one, name="i-8"))).kept) == {
        "i-0",
        "i-3",
        "i-8",
        "i-9",
    }


def test_a_script_that_does_not_save_in_time_is_ended_to_grow() -> None:
    book = shrunk()
    recovered(book, with_spare(training(200)), VARIES)
    late = replace(with_spare(training(322)), stops_sent=frozenset({2}))
    assert decide(VARIES, book.state, late) == (Kill(("i-0", "i-3", "i-2"), 2),)


def test_a_training_that_was_done_before_it_was_asked_to_grow_is_done() -> None:
    book = shrunk()
    recovered(book, with_spare(training(200)), VARIES)
    said = [replace(ended(i, 210, exit_code=0), generation=2) for i in (0, 2, 3)]
    assert verdict_of(decide(VARIES, book.state, with_spare(world(210, [taken(1, 59)], said)))).kind == "finished"


def test_a_wish_to_stop_waits_for_the_save_of_a_gang_that_grows() -> None:
    book = shrunk()
    recovered(book, with_spare(training(200)), VARIES)
    book.add("wish", "stop", 201, reason="asked to stop")
    assert decide(VARIES, book.state, with_spare(training(202))) == (Stop("i-0", 2),)
    said = [replace(ended(i, 210), generation=2, stopped_step=60) for i in (0, 2, 3)]
    assert verdict_of(decide(VARIES, book.state, with_spare(world(210, [taken(1, 59)], said)))).kind == "stopped"


def test_it_does_not_grow_again_within_ten_minutes_nor_launch_spares_long_before() -> None:
    book = shrunk()
    recovered(book, with_spare(training(200)), VARIES)
    again = 200 + GROW_EVERY.total_seconds()

    def later(seconds: float, *, spare: bool) -> tuple[Action, ...]:
        said = [replace(beacon(i, seconds=seconds, generation=4, progress={"step": 90})) for i in (0, 2, 3)]
        seen = with_spare(world(seconds, [taken(1, 59)], said), state="terminated")
        seen = replace(seen, recorded={"i-1": "terminated", "i-9": "terminated"})
        return decide(VARIES, book.state, with_spare(seen, name="i-8") if spare else seen)

    lost = with_spare(training(230, generation=3), state="terminated", end_reason="Server.SpotInstanceTermination")
    recovered(book, lost, VARIES)
    assert later(240, spare=False) == (), "a spare would only wait"
    assert later(again - 100, spare=False) == (Launch(4, 1, 0, count=1, spare=True),)
    book.tried(1, 0, "launched", ids=["i-8"], generation=4, count=1, seconds=again - 99, spare=True)
    assert later(again - 1, spare=True) == ()
    assert recovery_of(later(again + 1, spare=True)).kind == "grown"


def test_a_refused_spare_is_asked_for_again_after_longer_and_longer_pauses() -> None:
    book = four()
    recovered(book, world(60, [taken(1, 59)]), VARIES)
    seconds = 60.0
    for attempt, wait in enumerate((30, 60, 120, 240, 300, 300), 1):
        book.tried(attempt, 0, "no-capacity", generation=2, count=1, seconds=seconds, spare=True)
        assert decide(VARIES, book.state, training(seconds + wait - 1)) == ()
        (launch,) = decide(VARIES, book.state, training(seconds + wait))
        assert launch == Launch(2, attempt + 1, 0, count=1, spare=True)
        seconds += wait
    assert book.state.kept, "a refusal beside a gang that trains moves nobody"


def test_a_spare_that_does_not_boot_or_comes_too_late_is_given_back() -> None:
    book = shrunk()
    broken = replace(with_spare(training(100)), nodes={**training(100).nodes, "i-9": Node((), "no bundle")})
    assert decide(VARIES, book.state, broken) == (Terminate(("i-9",), "not needed"),)
    silent = with_spare(training(61 + 901), ready=False)
    assert decide(VARIES, book.state, silent) == (Terminate(("i-9",), "not needed"),)
    short = spec(4, min_nodes=2, max_duration="12m")
    assert decide(short, book.state, with_spare(training(60))) == (Terminate(("i-9",), "not needed"),)


def test_a_spare_joins_at_a_loss_if_it_has_booted_and_else_stays_one() -> None:
    two = [taken(1, 59), taken(2, 199)]

    def after(*, ready: bool) -> Facts:
        said = [beacon(i, seconds=200, generation=2) for i in (0, 3)]
        return with_spare(world(200, two, said), ready=ready)

    assert set(recovery_of(decide(VARIES, shrunk().state, after(ready=True))).kept) == {"i-0", "i-3", "i-9"}
    book = shrunk()
    assert set(recovered(book, after(ready=False), VARIES).kept) == {"i-0", "i-3"}
    assert list(book.state.spares) == ["i-9"]
    assert Launch(3, 1, 0, count=1, spare=True) in decide(VARIES, book.state, after(ready=False))


def test_no_more_spares_join_at_a_loss_than_there_is_room_for() -> None:
    book, gone = four(), [taken(1, 59), taken(2, 59)]
    recovered(book, world(60, gone), VARIES)
    book.tried(1, 0, "launched", ids=["i-8", "i-9"], generation=2, count=2, least=1, seconds=61, spare=True)
    gone.append(taken(3, 69))
    recovered(book, world(70, gone), VARIES)
    book.tried(1, 0, "launched", ids=["i-5", "i-6", "i-7"], generation=3, count=3, least=1, seconds=71)
    seen = world(100, [*gone, taken(0, 99)])
    for index in range(5, 10):
        seen = with_spare(seen, name=f"i-{index}")
    assert set(recovered(book, seen, VARIES).kept) == {"i-5", "i-6", "i-7", "i-8"}
    assert Terminate(("i-9",), "not needed") in decide(VARIES, book.state, seen)


def test_a_spare_that_never_speaks_after_it_joined_is_lost() -> None:
    book = shrunk()
    recovered(book, with_spare(training(200)), VARIES)
    said = [beacon(i, seconds=510, generation=3) for i in (0, 2, 3)]
    seen = with_spare(world(510, [taken(1, 59)], said), ready=True)
    found = recovery_of(decide(VARIES, book.state, seen))
    assert ("never joined" in found.cause, set(found.kept)) == (True, {"i-0", "i-2", "i-3"})


def test_with_fewer_than_the_least_the_survivors_wait_for_as_many_as_there_are() -> None:
    varies, book = spec(4, min_nodes=3), four()
    gone = [taken(1, 59), taken(2, 59)]
    found = recovered(book, world(60, gone), varies)
    assert (set(found.kept), found.missing) == ({"i-0", "i-3"}, 2)
    assert decide(varies, book.state, world(60, gone))[-1] == Launch(2, 1, 0, count=2, least=1)
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=2, least=1, seconds=61)
    stopped = with_spare(world(66, gone, [ended(i, 66) for i in (0, 3)]))
    actions = decide(varies, book.state, stopped)
    assert actions[0] == Launch(2, 2, 0, count=1, spare=True), "what is still missing"
    assert actions[1] == Start(("i-0", "i-3", "i-9"), {"i-0": 0, "i-3": 1, "i-9": 2}, 2)


def test_a_gang_that_moves_lets_its_spares_go() -> None:
    book = shrunk()
    gone = [taken(i, 199) for i in (1, 2, 3)] + [taken(0, 199)]
    seen = with_spare(world(200, gone, []), ready=False)
    recovered(book, seen, VARIES)
    assert decide(VARIES, book.state, seen)[0] == Terminate(("i-9",), "replaced")


def test_a_launch_asks_everywhere_for_all_and_then_for_as_many_as_there_are() -> None:
    book, seen = Book(), facts(0)
    wanted = [(0, None), (1, None), (2, None), (0, 2), (1, 2), (2, 2)]
    for attempt, (offer, least) in enumerate(wanted, 1):
        assert decide(VARIES, book.state, seen) == (Launch(1, attempt, offer, least=least),)
        book.tried(attempt, offer, "no-capacity", "InsufficientInstanceCapacity", least=least)
    verdict = verdict_of(decide(VARIES, book.state, seen))
    assert (verdict.kind, "no room for 2 to 4 nodes anywhere" in verdict.message) == ("no-capacity", True)


def test_a_gang_that_came_up_with_fewer_trains_and_asks_for_the_rest() -> None:
    book = Book().tried(1, 0, "no-capacity").tried(2, 0, "launched", ids=FOUR[:3], least=2)
    said = [beacon(i, seconds=60, progress={"step": 5}) for i in range(3)]
    seen = facts(60, [instance(i) for i in range(3)], said)
    assert decide(VARIES, book.state, seen) == (Launch(1, 3, 0, count=1, spare=True),)
    done = [replace(b, stage="exited", exit_code=0, synced=True) for b in said]
    assert verdict_of(decide(VARIES, book.state, facts(60, [instance(i) for i in range(3)], done))).kind == "finished"


def test_a_launch_waits_for_room_only_where_it_is_asked_to() -> None:
    waits = spec(2, capacity_wait="2m")

    def refused() -> Book:
        book = Book()
        for attempt in (1, 2, 3):
            book.tried(attempt, attempt - 1, "no-capacity", seconds=10)
        return book

    book = refused()
    assert verdict_of(decide(spec(2), book.state, facts(10))).kind == "no-capacity"
    assert decide(waits, book.state, facts(39)) == ()
    assert decide(waits, book.state, facts(40)) == (Launch(1, 4, 0),)
    for attempt in (4, 5, 6):
        book.tried(attempt, attempt - 4, "no-capacity", seconds=40)
    assert decide(waits, book.state, facts(99)) == (), "a minute after the second round"
    assert decide(waits, book.state, facts(100)) == (Launch(1, 7, 0),)
    for attempt in (7, 8, 9):
        book.tried(attempt, attempt - 7, "no-capacity", seconds=100)
    verdict = verdict_of(decide(waits, book.state, facts(101)))
    assert (verdict.kind, "asked 3 times in 1m30s" in verdict.message) == ("no-capacity", True)


@pytest.mark.parametrize(("status", "limit"), [("quota", "1h"), ("no-capacity", "6m")])
def test_nobody_waits_for_what_time_does_not_mend_or_there_is_no_time_for(status: str, limit: str) -> None:
    book = Book()
    for attempt in (1, 2, 3):
        book.tried(attempt, attempt - 1, status, seconds=10)
    run = spec(2, capacity_wait="30m", max_duration=limit, checkpoint_grace="2m")
    assert verdict_of(decide(run, book.state, facts(11))).kind == "no-capacity"


def test_the_time_of_a_run_that_waits_goes_on() -> None:
    book = Book()
    for attempt in (1, 2, 3):
        book.tried(attempt, attempt - 1, "no-capacity", seconds=10)
    run = spec(2, capacity_wait="30m", max_duration="7m")
    assert decide(run, book.state, facts(39)) == ()
    assert verdict_of(decide(run, book.state, facts(71))).kind == "no-capacity"


def test_a_spare_that_was_let_go_does_not_join_whatever_ec2_still_shows() -> None:
    book = shrunk().add("intent", "terminate", 150, instance_ids=["i-9"], reason="not needed")
    assert decide(VARIES, book.state, with_spare(training(200))) == (
        Terminate(("i-9",), "replaced"),
        Launch(2, 2, 0, count=1, spare=True),
    )
    gone = [taken(1, 59), taken(2, 199)]
    both = with_spare(world(200, gone, [beacon(i, seconds=200, generation=2) for i in (0, 3)]))
    assert set(recovery_of(decide(VARIES, book.state, both)).kept) == {"i-0", "i-3"}
    fresh = Book().tried(1, 0, "launched", ids=FOUR[:3], least=2)
    fresh.tried(2, 0, "launched", ids=["i-9"], count=1, seconds=10, spare=True)
    fresh.add("intent", "terminate", 20, instance_ids=["i-9"], reason="not needed")
    seen = with_spare(facts(30, [instance(i) for i in range(3)], [beacon(i, seconds=30) for i in range(3)]))
    assert decide(VARIES, fresh.state, seen) == (Terminate(("i-9",), "not needed"),)
