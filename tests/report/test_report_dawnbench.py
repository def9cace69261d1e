"""The rules of DAWNBench: what time and cost count, what is an entry and what is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.ledger import Verdict
from orchestrator.report import dawnbench
from orchestrator.report.dawnbench import TASKS, Course, find_objections, find_reached, read_course
from orchestrator.report.dawnbench_files import Author, file_stem, make_record, render_tsv
from orchestrator.run.view import RunView
from tests.core.worlds import at
from tests.report.dawnbench_runs import THROUGH, Lines, aws_run, evaluation, saved, start
from tests.report.views import ended, running

IMAGENET, CIFAR10 = TASKS["imagenet"], TASKS["cifar10"]
ME = Author("Ada L. Lovelace", "ada@example.org", code="https://example.org/orch/commit/" + "0a" * 20)


def course(lines: Lines = THROUGH, *, ignore_eval: bool = False) -> Course:
    return read_course(lines, IMAGENET, ignore_eval=ignore_eval)


def record(view: RunView, lines: Lines = THROUGH) -> dict[str, Any]:
    return make_record(view, course(lines), IMAGENET, ME, log="s3://b/log", ignore_eval=False, today=at(0).date())


def test_the_first_row_at_the_threshold_decides_and_counts_from_the_first_start() -> None:
    reached = find_reached(course(), IMAGENET)
    assert reached is not None
    assert reached.epoch == 3
    assert reached.hours == pytest.approx(0.3)


def test_without_evaluations_and_checkpoints_their_seconds_are_left_out_up_to_each_row() -> None:
    hours = [row.hours * 3600 for row in course(ignore_eval=True).rows]
    assert hours == pytest.approx([360 - 20, 720 - 42, 1080 - 62, 1440 - 82])
    assert [row.left_out for row in course(ignore_eval=True).rows] == [20, 42, 62, 82]
    assert {row.left_out for row in course().rows} == {0}


def test_only_what_passed_since_the_first_start_is_left_out_and_never_less_than_nothing() -> None:
    lines = (evaluation(900.0, 1, 50.0), *THROUGH[:2], saved(1200.0, 50, -5.0), THROUGH[2])
    assert [row.hours * 3600 for row in course(lines, ignore_eval=True).rows] == pytest.approx([340])


def test_an_interruption_counts_and_takes_back_what_was_scored_after_the_step_gone_on_from() -> None:
    lines = (
        *THROUGH[:5],
        {"time": 5000.0, "event": "resumed", "step": 150},
        start(5000.0, step=150),
        evaluation(5400.0, 2, 92.5),
        evaluation(5800.0, 3, 93.1),
    )
    found = course(lines)
    assert [(row.epoch, row.scores["top5"]) for row in found.rows] == [(1, 80.0), (2, 92.5), (3, 93.1)]
    reached = find_reached(found, IMAGENET)
    assert reached is not None and reached.hours * 3600 == pytest.approx(4800)
    assert dawnbench.time_rule(found, ignore_eval=False) == (
        "from the first start of the training, with 1 interruption of the run, with validation and checkpoints"
    )


def test_a_step_that_is_evaluated_again_after_an_interruption_keeps_its_first_row() -> None:
    lines = (*THROUGH[:3], start(1500.0, step=100), evaluation(1530.0, 1, 80.0), *THROUGH[4:])
    assert [(row.epoch, round(row.hours * 3600)) for row in course(lines).rows] == [
        (1, 360),
        (2, 720),
        (3, 1080),
        (4, 1440),
    ]


def test_lines_of_other_scripts_that_make_no_sense_are_passed_over() -> None:
    odd: list[dict[str, Any]] = [
        evaluation(900.0, 1, 99.0),  # before any start
        start(1000.0),
        evaluation(1100.0, 1, 101.0),
        evaluation(1200.0, 1, 50.0) | {"top5": "NaN"},
        {"time": 1250.0, "event": "eval", "top5": 93.0},
        {"event": "eval", "top1": 1, "top5": 93.0, "epoch": 1},
        evaluation(1300.0, 2, 60.0, images=None),
    ]
    assert [row.epoch for row in course(odd).rows] == [2]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("ImageNet", IMAGENET), ("imagenet-1k", IMAGENET), ("CIFAR-10", CIFAR10),
        ("imagenette", None), ("cifar100", None), ("digits", None), ("", None),
    ],
)  # fmt: skip
def test_the_task_is_known_from_the_data_set(name: str, task: object) -> None:
    assert dawnbench.find_task([start(0.0, dataset=name)], None) is task
    assert dawnbench.find_task([start(0.0, dataset=name)], "cifar10") is CIFAR10


def test_cost_is_by_the_on_demand_price_of_all_nodes_with_its_source() -> None:
    price = dawnbench.cost_per_hour(aws_run())
    assert price == (48_960_000, "2 x p3.16xlarge at $24.480000: test, read 2026-11-20")
    assert dawnbench.cost(0.3, price[0]) == 14_688_000


def test_the_published_run_of_sixteen_machines_costs_what_was_published() -> None:
    """The row of that entry's TSV, at 16 x $24.48: 18:05 and $118.07 in the official table."""
    assert round(dawnbench.cost(0.3014392769998974, 16 * 24_480_000) / 1e6, 2) == 118.07


def test_a_type_without_a_known_price_makes_no_cost() -> None:
    view = aws_run()
    assert dawnbench.cost_per_hour(replace(view, spec=replace(view.spec, on_demand={}))) is None
    assert "costPerHour" not in record(replace(view, spec=replace(view.spec, on_demand={})))


def test_spot_stands_in_misc_and_nowhere_else() -> None:
    view = aws_run()
    made = record(view)
    assert made["costPerHour"] == 48.96
    assert made["misc"]["spotCost"] == pytest.approx(view.bill.high / 1e6)
    assert made["misc"]["saving"] == pytest.approx(view.bill.saving / 1e6)
    assert made["misc"]["costPerHourSource"].endswith("read 2026-11-20")
    assert made["commitHash"] == "0a" * 20


def test_the_full_validation_set_is_said_and_a_reduced_one_too() -> None:
    assert record(aws_run())["usedBlacklist"] is True
    reduced = [line | {"images": 48_238} if line.get("event") == "eval" else line for line in THROUGH]
    assert record(aws_run(reduced), reduced)["usedBlacklist"] is False
    assert find_objections(aws_run(reduced), course(reduced), IMAGENET) == []
    silent = [line | {"images": None} if line.get("event") == "eval" else line for line in THROUGH]
    assert "usedBlacklist" not in record(aws_run(silent), silent)


def test_rows_are_in_percent_with_a_header_by_task() -> None:
    assert render_tsv(course(), IMAGENET).splitlines()[:2] == [
        "epoch\thours\ttop1Accuracy\ttop5Accuracy",
        "1\t0.10000000\t63.0\t80.0",
    ]
    assert render_tsv(course(), CIFAR10).splitlines()[:2] == ["epoch\thours\ttop1Accuracy", "1\t0.10000000\t63.0"]
    close = (THROUGH[0], evaluation(1360.0, 1.25, 92.99996))
    assert render_tsv(course(close), IMAGENET).splitlines()[1].endswith("\t92.99996")
    assert render_tsv(course(close), IMAGENET).splitlines()[1].startswith("1.25\t")
    assert "the best top-5 is 92.99996%" in find_objections(aws_run(close), course(close), IMAGENET)[0]


def test_a_file_name_has_four_parts_whatever_the_author_is_called() -> None:
    view = aws_run()
    assert file_stem(view, course(), ME) == "ada-l-lovelace_resnet50_2x-p3-16xlarge_pytorch"
    other = replace(ME, name="x_y/../z", model="My Net_2")
    assert file_stem(view, course(), other) == "x-y-z_my-net-2_2x-p3-16xlarge_pytorch"


def test_a_run_that_was_good_enough_has_no_objections() -> None:
    assert find_objections(aws_run(), course(), IMAGENET) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (THROUGH[:5], "the best top-5 is 92.998% after epoch 2, and 93% is needed"),
        ((start(0.0, dataset="digits"), *THROUGH[1:]), "its data set is digits, not ImageNet"),
        ((THROUGH[0], evaluation(1100.0, 1, 95.0, images=500)), "it was validated on 500 images"),
        ((THROUGH[0], evaluation(1100.0, 1, 95.0, images=None)), "do not say of how many `images`"),
        ((THROUGH[0], evaluation(1100.0, 1, 95.0), evaluation(1090.0, 2, 96.0)), "its times do not rise"),
        ((THROUGH[0], evaluation(1000.0, 1, 95.0)), "its times do not rise"),
    ],
)
def test_why_a_run_is_no_entry(lines: Lines, said: str) -> None:
    found = find_objections(aws_run(lines), course(lines), IMAGENET)
    assert len(found) == 1
    assert said in found[0]


def test_a_run_that_goes_on_is_no_entry_yet() -> None:
    going = replace(running(metrics={}, history=THROUGH), spec=aws_run().spec)
    assert find_objections(going, course(), IMAGENET) == ["it has not ended, so what it costs is not known yet"]


def test_the_sandbox_makes_no_entries_and_says_so_in_the_file_name() -> None:
    view = ended(Verdict("finished", "all 2 nodes finished"))
    assert find_objections(view, course(), IMAGENET) == [
        "it ran on the sandbox, whose machines and prices are not real"
    ]
    assert "p3-16xlarge-sandbox" in file_stem(view, course(), ME)


def test_a_run_resumed_on_a_dearer_type_counts_at_the_dearer_price() -> None:
    view = aws_run()
    spec = replace(
        view.spec,
        on_demand={**view.spec.on_demand, "p4d.24xlarge": {**view.spec.on_demand["p3.16xlarge"], "price": 30_000_000}},
    )
    other = replace(view.bill.instances[0], instance_type="p4d.24xlarge")
    mixed = replace(view, spec=spec, bill=replace(view.bill, instances=(*view.bill.instances, other)))
    price = dawnbench.cost_per_hour(mixed)
    assert price is not None and price[0] == 60_000_000
    assert (
        record(mixed)["hardware"] == "2 * p3.16xlarge (8 V100 each), then 2 * p4d.24xlarge (8 A100 each), AWS us-east-1"
    )
