"""The course of a training as its progress lines tell it: stretches, work done twice, accuracy. Pure.

Any script may write those lines, so nothing about their keys and types is taken for granted; what a line does not say
is not guessed. Knows no money: `core.spending` lays the bill over it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

Kind = Literal["training", "evaluating", "saving", "lost"]
# Events whose `seconds` say for how long the training stood still until that line (docs/node-contract.md).
STANDING: Mapping[str, Kind] = {"eval": "evaluating", "checkpoint": "saving"}
ACCURACIES = ("top5", "top1", "accuracy")
MOST_EPOCHS = 1_000_000  # beyond that it is no number of epochs, whatever the line calls it
CLOCK_SLACK = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Point:
    """One progress line with its time."""

    time: datetime
    line: Mapping[str, Any]

    def figure(self, name: str) -> float | None:
        """Return a figure of the line, None where it is missing or no finite number."""
        return number(self.line.get(name))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Progress lines of one start of the training, in order of time; at least one."""

    points: tuple[Point, ...]

    @property
    def begin(self) -> datetime:
        """The time of its first line."""
        return self.points[0].time

    @property
    def end(self) -> datetime:
        """The time of its last line."""
        return self.points[-1].time


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which the training did one thing."""

    begin: datetime
    end: datetime
    kind: Kind


def number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def read_points(history: Iterable[Mapping[str, Any]], begin: datetime, end: datetime) -> tuple[Point, ...]:
    """Return the lines whose `time` (Unix, seconds) lies in [begin, end], give or take a minute, in order."""
    found = []
    for line in history:
        seconds = number(line.get("time"))
        if seconds is None or not begin - CLOCK_SLACK <= (moment := _moment(seconds)) <= end + CLOCK_SLACK:
            continue
        found.append(Point(min(max(moment, begin), end), line))
    return tuple(sorted(found, key=lambda point: point.time))


def _moment(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.min.replace(tzinfo=UTC)


def split(points: Sequence[Point]) -> tuple[Stretch, ...]:
    """Return the stretches: one begins with an event `start`, another generation, or a step that was passed before."""
    groups: list[list[Point]] = []
    step: float | None = None
    for point in points:
        found = point.figure("step")
        back = step is not None and found is not None and found < step
        other = bool(groups) and groups[-1][-1].line.get("generation") != point.line.get("generation")
        if not groups or back or other or point.line.get("event") == "start":
            groups.append([])
            step = None
        groups[-1].append(point)
        step = found if found is not None else step
    return tuple(Stretch(tuple(group)) for group in groups)


def spans(stretches: Sequence[Stretch]) -> tuple[Span, ...]:
    """Return what the training did when, without overlaps, in order; between two stretches it did nothing.

    The work of a stretch beyond the step at which the next one begins was done again: it is lost.
    """
    found: list[Span] = []
    for index, stretch in enumerate(stretches):
        after = stretches[index + 1] if index + 1 < len(stretches) else None
        kept = _kept_until(stretch, after)
        found += _kept(stretch, kept)
        if kept < stretch.end:
            found.append(Span(kept, stretch.end, "lost"))
    return tuple(found)


def _kept_until(stretch: Stretch, after: Stretch | None) -> datetime:
    """Return until when the work of a stretch was of use to the next one."""
    if after is None:
        return stretch.end
    resumed = next((step for point in after.points if (step := point.figure("step")) is not None), None)
    steps = [(point.time, step) for point in stretch.points if (step := point.figure("step")) is not None]
    if resumed is None or not steps or steps[-1][1] <= resumed:
        return stretch.end
    return max((time for time, step in steps if step <= resumed), default=stretch.begin)


def _kept(stretch: Stretch, until: datetime) -> Iterator[Span]:
    at = stretch.begin
    for point in stretch.points:
        kind = STANDING.get(str(point.line.get("event")))
        seconds = point.figure("seconds")
        if kind is None or seconds is None or seconds <= 0 or point.time > until:
            continue
        stood = max(at, point.time - timedelta(seconds=min(seconds, (point.time - at).total_seconds())))
        if at < stood:
            yield Span(at, stood, "training")
        if stood < point.time:
            yield Span(stood, point.time, kind)
        at = point.time
    if at < until:
        yield Span(at, until, "training")


def epoch_ends(points: Iterable[Point]) -> tuple[tuple[int, datetime], ...]:
    """Return when each whole epoch was first complete; epochs that no line marks are not told apart and left out."""
    found: list[tuple[int, datetime]] = []
    done = 0
    for point in points:
        epoch = point.figure("epoch")
        if epoch is not None and done < math.floor(epoch) <= MOST_EPOCHS:
            done = math.floor(epoch)
            found.append((done, point.time))
    return tuple(found)


def accuracy_name(points: Iterable[Point]) -> str | None:
    """Return the accuracy the training tells, the first of `ACCURACIES` that it has."""
    told = {name for point in points for name in ACCURACIES if point.figure(name) is not None}
    return next((name for name in ACCURACIES if name in told), None)


def records(points: Iterable[Point], name: str) -> tuple[Point, ...]:
    """Return the lines at which a figure was higher than ever before."""
    best, found = -math.inf, []
    for point in points:
        value = point.figure(name)
        if value is not None and value > best:
            best = value
            found.append(point)
    return tuple(found)
