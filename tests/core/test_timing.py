"""The way from the launch to the first step, against times laid out by hand."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.beacon import Beacon, Mark
from orchestrator.core.timing import node_starts
from orchestrator.core.units import iso
from orchestrator.report.timing import timing_rows
from tests.core.worlds import T0, Book, at, beacon, facts, instance

TWO = ["i-0", "i-1"]
BOOT = ((0, "bundle", 40.0), (0, "ready", 42.5))
FIRST = ((1, "starting", 44.0), (1, "staging", 44.5), (1, "setup", 104.5), (1, "running", 110.0))
STEPS = ((1, "progress", 130.0), (1, "step", 131.0))


def said(index: int, *marks: tuple[int, str, float], seconds: float = 200, **changes: object) -> Beacon:
    times = tuple(Mark(generation, stage, at(when).timestamp()) for generation, stage, when in marks)
    return replace(beacon(index, "running", seconds), times=times, **changes)  # type: ignore[arg-type]


def launched() -> Book:
    return Book().tried(1, 0, "no-capacity", seconds=1).tried(2, 1, "launched", ids=TWO, seconds=3)


def test_every_stage_has_its_seconds_and_the_whole_gang_makes_the_first_step() -> None:
    seen = facts(200, [instance(0), instance(1)], [said(0, *BOOT, *FIRST, *STEPS), said(1, *BOOT, *FIRST)])
    first, second = node_starts(T0, launched().state, seen)
    assert first.seconds == {
        "request": 3, "boot": 37, "bundle": 2.5, "ssh": 2, "staging": 60, "setup": 5.5, "rendezvous": 20,
        "first step": 1,
    }  # fmt: skip
    assert (first.rank, first.now, first.total) == (0, None, 131)
    assert (second.rank, second.seconds) == (1, first.seconds)


def test_a_node_on_its_way_tells_where_it_is_and_for_how_long() -> None:
    (only,) = node_starts(T0, launched().state, facts(90, [instance(0)], [said(0, *BOOT, *FIRST[:2], seconds=90)]))
    assert (only.now, only.seconds["staging"], only.total) == ("staging", 45.5, 90)


def test_a_script_that_tells_no_progress_is_in_rendezvous_for_nobody_knows_how_long() -> None:
    (only,) = node_starts(T0, launched().state, facts(900, [instance(0)], [said(0, *BOOT, *FIRST, seconds=900)]))
    assert (only.now, "rendezvous" in only.seconds, only.total) == ("rendezvous", False, 110)
    header, row = timing_rows([only.to_json()])
    cells = dict(zip(header, row, strict=True))
    assert [cells[name] for name in ("setup", "rendezvous", "total")] == ["5.5", "+", "110.0+"]
    done = said(0, *BOOT, *FIRST, seconds=900, exit_code=0)
    (only,) = node_starts(T0, launched().state, facts(900, [instance(0)], [done]))
    assert (only.now, only.total, "rendezvous" in timing_rows([only.to_json()])[0]) == (None, 110, False)


def test_a_node_that_is_being_checked_is_said_to_be() -> None:
    seen = facts(90, [instance(0)], [said(0, *BOOT, FIRST[0], (1, "preflight", 44.5), seconds=50)])
    (only,) = node_starts(T0, launched().state, seen)
    assert timing_rows([only.to_json()])[1][-2:] == ("5.5+", "50.0+")


def test_a_kept_machine_begins_with_its_start_command_and_a_new_one_with_its_request() -> None:
    book = launched().add("intent", "recover", 300, **RECOVERY)
    book.tried(1, 1, "launched", ids=["i-2"], generation=2, count=1, seconds=302)
    again = ((2, "starting", 306.0), (2, "running", 308.0), (2, "progress", 350.0), (2, "step", 350.0))
    new = ((0, "bundle", 320.0), (0, "ready", 321.0), (2, "starting", 322.0), (2, "running", 324.0))
    nodes = [said(0, *BOOT, *FIRST, *STEPS, *again, generation=2), replace(said(2, *new, generation=2), rank=1)]
    found = node_starts(T0, book.state, facts(400, [instance(0), instance(2)], nodes))
    assert [(item.generation, item.rank, item.instance_id) for item in found] == [
        (1, 0, "i-0"),
        (2, 0, "i-0"),
        (2, 1, "i-2"),
    ]
    assert found[1].seconds == {"ssh": 2, "rendezvous": 42, "first step": 0}
    assert found[2].seconds == {"request": 0, "boot": 18, "bundle": 1, "ssh": 3, "rendezvous": 26, "first step": 0}
    assert (found[1].total, found[2].total) == (44, 48)


CHECKED = ((1, "starting", 44.0), (1, "preflight", 45.0))


def test_a_start_that_was_given_up_in_its_preflight_ends_there_and_the_node_that_fell_silent_has_a_row() -> None:
    book = launched().add("intent", "recover", 90, **RECOVERY, unfit={"i-1": "it stopped answering"})
    book.tried(1, 1, "launched", ids=["i-2"], generation=2, count=1, seconds=92)
    nodes = [said(0, *BOOT, *CHECKED, (2, "starting", 93.0), generation=2), said(1, *BOOT, seconds=45)]
    found = node_starts(T0, book.state, facts(200, [instance(0), instance(1), instance(2)], nodes))
    first, silent, second = found
    assert (first.seconds["preflight"], first.now, first.total) == (45, None, 90)
    assert (silent.instance_id, silent.rank, silent.generation) == ("i-1", 1, 1)
    assert (silent.seconds, silent.now, silent.total) == ({"request": 3}, None, 90)
    assert (second.generation, second.now) == (2, "ssh")


def test_a_node_that_was_replaced_is_in_no_stage_any_more() -> None:
    book = launched().add("intent", "recover", 90, **RECOVERY, unfit={"i-1": "slow"})
    (slow,) = node_starts(T0, book.state, facts(200, [instance(1)], [said(1, *BOOT, *CHECKED, seconds=95)]))
    assert (slow.seconds["preflight"], slow.now, slow.total) == (45, None, 90)


def test_what_was_never_left_ends_with_the_nodes_exit_its_machine_or_the_run() -> None:
    staging = (*BOOT, *FIRST[:2])
    failed = said(0, *staging, stage="exited", exit_code=1, exit_time=iso(at(50)))
    gone = instance(0, "terminated", end_time=at(60))
    closed = launched().add("outcome", "close", 70, generation=1).state
    for state, machine, told, seconds in (
        (closed, gone, failed, 5.5),
        (closed, gone, said(0, *staging), 15.5),
        (closed, instance(0), said(0, *staging), 25.5),
    ):
        (only,) = node_starts(T0, state, facts(200, [machine], [told]))
        assert (only.seconds["staging"], only.now, only.total) == (seconds, None, 44.5 + seconds)


def test_a_script_that_told_progress_and_no_steps_has_no_first_step_once_it_has_ended() -> None:
    done = said(0, *BOOT, *FIRST, STEPS[0], seconds=900, exit_code=0, exit_time=iso(at(890)))
    (only,) = node_starts(T0, launched().state, facts(900, [instance(0)], [done]))
    assert (only.now, only.seconds["rendezvous"], "first step" in only.seconds) == (None, 20, False)


def test_clocks_that_disagree_give_nothing_less_than_nothing() -> None:
    early = ((0, "bundle", 1.0), (0, "ready", 0.5), *FIRST)
    (only,) = node_starts(T0, launched().state, facts(200, [instance(0)], [said(0, *early)]))
    assert min(only.seconds.values()) >= 0


def test_marks_survive_the_way_through_json() -> None:
    made = said(0, *BOOT, *FIRST)
    assert Beacon.from_json(made.to_json()).times == made.times


RECOVERY = {
    "generation": 1, "kind": "lost", "cause": "gone", "kept": {"i-0": 0}, "going": [], "missing": 1, "offer": 1,
    "graceful": False, "trained": True, "size": 2,
}  # fmt: skip
