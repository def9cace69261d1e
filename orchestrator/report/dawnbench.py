"""A run as an entry of DAWNBench: the rows of its TSV, its JSON, and whether it reached the threshold. Pure.

The rules are those of the benchmark's repository (stanford-futuredata/dawn-bench-entries, README and FAQ): time from
the start of the training to the first row at the threshold; cost is that time at the on-demand price, never at the spot
price; the time of validation and of saving checkpoints may be left out. Where the rules are silent the longer time is
taken: all that passed between the first start and a row counts, interruptions of the run included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from orchestrator.core.units import MicroUSD, counted, usd
from orchestrator.run import prices
from orchestrator.run.view import RunView

HOUR = 3600.0
STANDING = ("eval", "checkpoint")  # events whose `seconds` say for how long the training stood still


@dataclass(frozen=True, slots=True)
class Task:
    """A training task of the benchmark: `figure` of the eval lines must reach `threshold` percent.

    `columns` are those of the TSV after epoch and hours, with the figure each holds; `names` are what data sets of the
    task are called (letters and digits alone); `images` how many its validation set has: all, or all but those that
    some entries leave out.
    """

    name: str
    title: str
    figure: str
    threshold: float
    columns: Mapping[str, str]
    names: frozenset[str]
    images: tuple[int, ...]


TASKS = {
    task.name: task
    for task in (
        Task(
            "imagenet",
            "ImageNet",
            "top5",
            93.0,
            {"top1Accuracy": "top1", "top5Accuracy": "top5"},
            frozenset({"imagenet", "imagenet1k", "imagenet2012", "imagenet18", "ilsvrc2012", "ilsvrc"}),
            (50_000, 48_238),
        ),
        Task("cifar10", "CIFAR10", "top1", 94.0, {"top1Accuracy": "top1"}, frozenset({"cifar10"}), (10_000,)),
    )
}
LABELS = {"top1": "top-1", "top5": "top-5"}


@dataclass(frozen=True, slots=True)
class Row:
    """One evaluation: `hours` since the first start of the training; `scores` are top1 and top5 in percent.

    `left_out` is how many seconds of validation and checkpoints these hours do not hold.
    """

    epoch: float
    hours: float
    step: int
    scores: Mapping[str, float]
    images: int | None
    left_out: float


@dataclass(frozen=True, slots=True)
class Course:
    """What the progress lines of a run say of its course.

    `start` is the newest `start` line; `starts` counts how often the training was started.
    """

    rows: tuple[Row, ...]
    start: Mapping[str, Any]
    starts: int


def find_task(lines: Sequence[Mapping[str, Any]], wanted: str | None) -> Task | None:
    """Return the task `wanted`, or the one whose data set the newest `start` line names; None when it is neither."""
    if wanted is not None:
        return TASKS[wanted]
    name = dataset(lines)
    return next((task for task in TASKS.values() if _letters(name) in task.names), None)


def dataset(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the data set in the newest `start` line, "" when none names one."""
    names = [str(line.get("dataset") or "") for line in lines if line.get("event") == "start"]
    return names[-1] if names else ""


def read_course(lines: Sequence[Mapping[str, Any]], task: Task, *, ignore_eval: bool) -> Course:
    """Return the course of a run from its progress lines, oldest first.

    A start from step N takes back the evaluations after N: what they scored was lost, and is trained again. What a step
    scored when it was first evaluated holds: a training that goes on from there may evaluate it once more.
    """
    first: float | None = None
    start: Mapping[str, Any] = {}
    rows: list[Row] = []
    starts, left_out = 0, 0.0
    for line in lines:
        event, time = line.get("event"), _number(line.get("time"))
        if time is None:
            continue
        if event == "start":
            first = time if first is None else first
            start, starts = line, starts + 1
            rows = [row for row in rows if row.step <= (_number(line.get("step")) or 0)]
        if first is None:
            continue
        if event in STANDING and ignore_eval:
            left_out += max(0.0, _number(line.get("seconds")) or 0.0)
        row = _row(line, task, time - first - left_out, left_out) if event == "eval" else None
        if row is not None and (row.epoch, row.step) not in {(scored.epoch, scored.step) for scored in rows}:
            rows.append(row)
    return Course(tuple(rows), start, starts)


def _row(line: Mapping[str, Any], task: Task, seconds: float, left_out: float) -> Row | None:
    """Return the row of an eval line; None when it lacks a figure of the task."""
    scores = {name: value for name in task.columns.values() if (value := _number(line.get(name))) is not None}
    epoch, step, images = (_number(line.get(name)) for name in ("epoch", "step", "images"))
    if len(scores) < len(task.columns) or epoch is None or not all(0 <= score <= 100 for score in scores.values()):
        return None
    return Row(epoch, seconds / HOUR, int(step or 0), scores, None if images is None else int(images), left_out)


def find_reached(course: Course, task: Task) -> Row | None:
    """Return the first row at or above the threshold, None when there is none."""
    return next((row for row in course.rows if row.scores[task.figure] >= task.threshold), None)


def find_best(course: Course, task: Task) -> Row:
    """Return the row of the highest figure. There must be one."""
    return max(course.rows, key=lambda row: row.scores[task.figure])


def find_objections(view: RunView, course: Course, task: Task) -> list[str]:
    """Return why this is not an eligible entry, each in a few words; none when it is one."""
    found = []
    if find_reached(course, task) is None:
        best = find_best(course, task)
        found.append(
            f"the best {LABELS[task.figure]} is {best.scores[task.figure]}% after epoch {best.epoch:g}, "
            f"and {task.threshold:g}% is needed"
        )
    name = dataset((course.start,))
    if _letters(name) not in task.names:
        found.append(f"its data set is {name or 'not named'}, not {task.title}")
    counts = {row.images for row in course.rows}
    if None in counts:
        found.append("its evaluations do not say of how many `images` they are")
    if wrong := [count for count in counts if count is not None and count not in task.images]:
        found.append(f"it was validated on {max(wrong):,} images, and {task.title} has {task.images[0]:,}")
    if view.spec.cloud == "sandbox":
        found.append("it ran on the sandbox, whose machines and prices are not real")
    if not view.ended:
        found.append("it has not ended, so what it costs is not known yet")
    hours = [0.0, *(row.hours for row in course.rows)]
    if any(later <= earlier for earlier, later in pairwise(hours)):
        found.append("its times do not rise: the clocks of its nodes disagree")
    return found


def cost_per_hour(view: RunView) -> tuple[MicroUSD, str] | None:
    """Return the on-demand price of all nodes together for an hour, with its source; None when it is not known.

    Of a run that was resumed on another type it is the dearer one.
    """
    listed = prices.on_demand_of(view.spec)
    used = [listed[name] for name in instance_types(view) if name in listed]
    if not used or len(used) < len(instance_types(view)):
        return None
    dearest = max(used, key=lambda item: item.price)
    source = f"{view.spec.num_nodes} x {dearest.instance_type} at ${usd(dearest.price)}: {dearest.source}"
    return view.spec.num_nodes * dearest.price, f"{source}, read {dearest.time:%Y-%m-%d}"


def cost(hours: float, per_hour: MicroUSD) -> MicroUSD:
    """Return what `hours` cost, rounded to a micro-dollar."""
    return round(Decimal(per_hour) * Decimal(hours))


def instance_types(view: RunView) -> list[str]:
    """Return the types the run had instances of."""
    return sorted({item.instance_type for item in view.bill.instances})


def time_rule(course: Course, *, ignore_eval: bool) -> str:
    """Return in words what the hours hold."""
    again = course.starts - 1
    text = "from the first start of the training"
    if again > 0:
        text += f", with {counted(again, 'interruption')} of the run"
    return text + (", without validation and checkpoints" if ignore_eval else ", with validation and checkpoints")


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _number(value: Any) -> float | None:
    """Return `value` where it is a finite number: anybody may write progress lines."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
