"""Where the money of a run went, against sums done by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import course, spending
from orchestrator.core.beacon import Mark
from orchestrator.core.bill import Bill, make_bill
from orchestrator.core.facts import Instance, PriceRow
from tests.core.worlds import T0, at, instance
from tests.report.report_runs import gang, history, interrupted_run, line
from tests.report.views import LISTED

# A dollar a second makes dollars and seconds one.
FLAT = (PriceRow("us-east-1a", "p3.16xlarge", at(-60), 3_600_000_000),)


def lived(index: int, begin: float, end: float) -> Instance:
    stopped = instance(index, "terminated", end_time=at(end), end_reason="Client.UserInitiatedShutdown", volumes=())
    return replace(stopped, launch_time=at(begin))


def flat(*nodes: Instance) -> Bill:
    return make_bill("run", nodes, FLAT, LISTED, at(9000))


def spans(lines: list[dict[str, object]]) -> tuple[course.Span, ...]:
    return course.spans(course.split(course.read_points(lines, T0, at(9000))))


def mark(stage: str, seconds: float, generation: int = 1) -> Mark:
    return Mark(generation, stage, T0.timestamp() + seconds)


def dollars(bill: Bill, lines: list[dict[str, object]], **started: float) -> dict[str, float]:
    """Return whole dollars by purpose; `started` counts seconds after the launch."""
    begun = {f"i-{name[1:]}": [mark("running", value)] for name, value in started.items()}
    parts = spending.lives(bill, spans(lines), begun)
    return {name: usd / 1_000_000 for name, usd in spending.by_purpose(bill, parts).items()}


STEPS = [line(300, 0, event="start"), line(400, 10), line(500, 20), line(560, 20, event="eval", seconds=50)]


def test_every_second_has_one_purpose() -> None:
    lines = [*STEPS, line(600, 25, event="checkpoint", seconds=10)]
    assert dollars(flat(lived(0, 0, 700)), lines, i0=200) == {
        "booting": 200,
        "starting the training": 100,
        "training": 240,
        "evaluating": 50,
        "saving": 10,
        "waiting and ending": 100,
    }


def test_work_beyond_the_step_at_which_training_goes_on_is_lost() -> None:
    again = [line(700, 10, 2, event="start"), line(800, 20, 2)]
    found = dollars(flat(lived(0, 0, 800)), [*STEPS[:3], *again])
    assert (found["training"], found["work done twice"], found["waiting and ending"]) == (200, 100, 200)


def test_a_start_from_nothing_loses_all_that_was_done() -> None:
    found = dollars(flat(lived(0, 0, 800)), [*STEPS[1:3], line(700, 0, event="start"), line(800, 20)])
    assert (found["training"], found["work done twice"]) == (100, 100)


def test_a_stop_with_a_checkpoint_loses_nothing() -> None:
    found = dollars(flat(lived(0, 0, 800)), [*STEPS[:3], line(700, 20, 2, event="start"), line(800, 30, 2)])
    assert "work done twice" not in found


def test_a_node_that_came_later_boots_while_the_others_wait() -> None:
    bill = flat(lived(0, 0, 800), lived(1, 550, 800))
    found = dollars(bill, [*STEPS[:3], line(700, 20, 2, event="start"), line(800, 30, 2)])
    assert found == {"booting": 300 + 150, "training": 200 + 2 * 100, "waiting and ending": 200}


def test_of_the_minute_that_is_billed_at_least_only_what_was_lived_was_of_use() -> None:
    lines = [line(5, 1, event="start"), line(15, 9), line(30, 9, 2, event="start"), line(50, 20, 2)]
    assert dollars(flat(lived(0, 0, 20)), lines) == {
        "booting": 5,
        "training": 10,
        "waiting and ending": 45,
    }


def test_a_script_that_says_nothing_leaves_it_unknown() -> None:
    assert dollars(flat(lived(0, 0, 800)), []) == {"unknown": 800}
    assert dollars(flat(lived(0, 0, 800)), [], i0=250) == {"booting": 250, "unknown": 550}


def test_stages_that_nodes_noted_are_told_apart_in_every_start() -> None:
    bill = flat(lived(0, 0, 800), lived(1, 550, 800))
    first = [mark("bundle", 40, 0), mark("ready", 45, 0), mark("starting", 50), mark("preflight", 60)]
    first += [mark("staging", 70), mark("setup", 150), mark("running", 200), mark("step", 310)]
    second = [mark("starting", 560, 2), mark("staging", 570, 2), mark("running", 600, 2)]
    late = [mark("bundle", 580, 0), mark("staging", 600, 2), mark("running", 640, 2)]
    lines = [*STEPS[:3], line(700, 20, 2, event="start"), line(800, 30, 2)]
    parts = spending.lives(bill, spans(lines), {"i-0": [*first, *second], "i-1": late})
    assert {name: usd / 1_000_000 for name, usd in spending.by_purpose(bill, parts).items()} == {
        "booting": 60 + 10 + 50,
        "preflight": 10,
        "staging data": 80 + 30 + 40,
        "setup": 50,
        "starting the training": 100 + 100 + 60,
        "training": 200 + 2 * 100,
        "waiting and ending": 60,
    }


def test_epochs_cost_what_passed_while_they_were_trained() -> None:
    lines = [line(100, 0, epoch=0), line(160, 5, epoch=1.2), line(300, 9, epoch=3), line(301, 1, epoch=1)]
    costs = spending.epoch_costs(flat(lived(0, 0, 400)), course.read_points(lines, T0, at(400)))
    # No line marks the end of epoch 2, so its dollars are in those of epoch 3.
    assert costs == ((1, 60_000_000), (3, 140_000_000))


def test_a_milestone_has_the_time_and_the_dollars_it_took() -> None:
    lines = [line(100, 1, top5=10.0), line(200, 2, top5=9.0), line(250, 3, top5=93.1), line(300, 4, top5="?")]
    found = spending.milestones(flat(lived(0, 0, 400)), course.read_points(lines, T0, at(400)), "top5")
    assert [(item.value, item.seconds, item.spot) for item in found] == [
        (10.0, 100, 100_000_000),
        (93.1, 250, 250_000_000),
    ]
    assert found[1].on_demand == round(250 * 24_480_000 / 3600)


def test_dollars_by_a_moment_follow_the_price_of_each_hour() -> None:
    rows = (
        PriceRow("us-east-1a", "p3.16xlarge", at(-1), 3_600_000),
        PriceRow("us-east-1a", "p3.16xlarge", at(3000), 7_200_000),
    )
    bill = make_bill("run", [lived(0, 0, 5400)], rows, LISTED, at(9000))
    assert [spending.spent(bill, at(seconds)) for seconds in (-5, 0, 1800, 3600, 5400, 9999)] == [
        0, 0, 1_800_000, 3_600_000, 7_200_000, 7_200_000,
    ]  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 8000)), min_size=1, max_size=5),
    st.lists(st.tuples(st.floats(0, 9000), st.integers(0, 50), st.sampled_from(["", "start", "eval"])), max_size=12),
    st.dictionaries(
        st.integers(0, 4),
        st.lists(st.tuples(st.sampled_from([*spending.OF_STAGE, "step"]), st.floats(-100, 9000)), max_size=6),
        max_size=3,
    ),
)
def test_the_parts_are_the_bill_and_no_second_is_counted_twice(
    stays: list[tuple[int, int]],
    told: list[tuple[float, int, str]],
    entered: dict[int, list[tuple[str, float]]],
) -> None:
    nodes = [
        replace(lived(n, begin, begin + length), volumes=gang()[0].volumes) for n, (begin, length) in enumerate(stays)
    ]
    uneven = [PriceRow("us-east-1a", "p3.16xlarge", at(-60), 7_654_321)]
    bill = make_bill("run", nodes, uneven, LISTED, at(20_000))
    lines = [line(when, step, event=event, seconds=30) for when, step, event in told]
    marks = {f"i-{n}": [mark(stage, when) for stage, when in stages] for n, stages in entered.items()}
    parts = spending.lives(bill, spans(lines), marks)
    assert sum(spending.by_purpose(bill, parts).values()) == bill.high
    for item in bill.instances:
        mine = [part for part in parts if part.instance_id == item.instance_id]
        assert mine[0].begin == item.start
        assert all(a.end == b.begin for a, b in pairwise(mine))
        assert mine[-1].end == item.start + timedelta(seconds=item.seconds)


def test_the_end_of_the_run_is_its_whole_bill() -> None:
    bill = interrupted_run().bill
    assert spending.spent(bill, at(9999)) == bill.high
    assert spending.spent_on_demand(bill, at(9999)) == bill.on_demand


@pytest.mark.parametrize("odd", [float("nan"), 10**400, "soon", None, True, 1e300, -1e300])
def test_a_time_that_is_none_is_passed_over(odd: object) -> None:
    assert course.read_points([{"time": odd, "step": 1}, *history()[:1]], T0, at(9000)) == (
        course.Point(at(300), history()[0]),
    )
