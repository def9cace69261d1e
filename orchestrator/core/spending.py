"""Where the money of a run went: its bill laid over the course of its training. Pure.

Made of what S3 holds after the run: instances, the bill, progress lines, the marks in the nodes' last beacons of when
each stage began. What those do not tell is not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from orchestrator.core.beacon import Mark
from orchestrator.core.bill import OTHER, Bill, InstanceBill
from orchestrator.core.course import Point, Span, epoch_ends, records
from orchestrator.core.units import MicroUSD

# What money was spent on, in the order of a run.
BOOT, PREFLIGHT, STAGING, SETUP, START, TRAINING, EVALUATING, SAVING, LOST, IDLE, UNKNOWN, _ = PURPOSES = (
    "booting", "preflight", "staging data", "setup", "starting the training", "training", "evaluating", "saving",
    "work done twice", "waiting and ending", "unknown", OTHER,
)  # fmt: skip
OF_KIND = {"training": TRAINING, "evaluating": EVALUATING, "saving": SAVING, "lost": LOST}
# What a stage of a node is for, once it has begun; further marks (of progress) begin no stage.
OF_STAGE = {
    "bundle": BOOT, "ready": BOOT, "starting": BOOT, "preflight": PREFLIGHT, "staging": STAGING, "setup": SETUP,
    "running": START,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Life:
    """What one billed instance did from `begin` to `end`: one `purpose`."""

    instance_id: str
    begin: datetime
    end: datetime
    purpose: str


@dataclass(frozen=True, slots=True)
class Milestone:
    """What had passed when something was reached: seconds since the first launch, and micro-dollars."""

    name: str
    value: float
    time: datetime
    seconds: float
    spot: MicroUSD
    on_demand: MicroUSD


def end_of(item: InstanceBill) -> datetime:
    """Return when the billed time of an instance ends."""
    return item.start + timedelta(seconds=item.seconds)


def begin_of(bill: Bill, otherwise: datetime) -> datetime:
    """Return when the first instance began, `otherwise` without any."""
    return min((item.start for item in bill.instances), default=otherwise)


def lives(bill: Bill, spans: Sequence[Span], marks: Mapping[str, Sequence[Mark]]) -> tuple[Life, ...]:
    """Return what every billed second of every instance was for, instance by instance, without gaps.

    `marks` are those of each instance, as far as they are known. Without any progress line nothing after the start of
    the `run` command is known.
    """
    return tuple(part for item in bill.instances for part in _life(item, spans, marks.get(item.instance_id, ())))


def _life(item: InstanceBill, spans: Sequence[Span], marks: Sequence[Mark]) -> Iterable[Life]:
    begin, end = item.start, end_of(item)
    # A minute is billed of what lived for less: in the rest of it others may train, this one does not.
    gone = min(item.end or end, end)
    inside = [
        (max(span.begin, begin), min(span.end, gone), OF_KIND[span.kind])
        for span in spans
        if span.begin < gone and span.end > begin
    ]
    entered = [
        (min(max(datetime.fromtimestamp(mark.time, UTC), begin), gone), OF_STAGE[mark.stage])
        for mark in sorted(marks, key=lambda mark: mark.time)
        if mark.stage in OF_STAGE
    ]
    # What a script that tells nothing did is not known; what preceded the first thing that is known, was the boot.
    told = {START: START if spans else UNKNOWN}
    first = BOOT if inside or entered or spans else UNKNOWN
    at = begin
    for left, right, purpose in [*inside, (gone, gone, IDLE)]:
        for a, b, what in _between(at, left, entered, first if at == begin else IDLE):
            yield Life(item.instance_id, a, b, told.get(what, what))
        if left < right:
            yield Life(item.instance_id, left, right, purpose)
        at = max(at, right)
    if at < end:
        yield Life(item.instance_id, at, end, IDLE)


def _between(
    left: datetime, right: datetime, entered: Sequence[tuple[datetime, str]], before: str
) -> Iterable[tuple[datetime, datetime, str]]:
    """Return the stages between two things that the training did; `before` is what precedes the first of them."""
    stages = [(left, before), *(item for item in entered if left <= item[0] < right)]
    for (begin, what), (end, _) in pairwise([*stages, (right, before)]):
        if begin < end:
            yield begin, end, what


def by_purpose(bill: Bill, parts: Iterable[Life]) -> dict[str, MicroUSD]:
    """Return what each purpose cost, in the order of `PURPOSES`, without those of nothing; adds up to `bill.high`."""
    items = {item.instance_id: item for item in bill.instances}
    exact = dict.fromkeys(PURPOSES, 0.0)
    for part in parts:
        item = items[part.instance_id]
        exact[part.purpose] += _charge(item, part.end) - _charge(item, part.begin)
    exact[OTHER] = float(sum(line.usd for line in bill.other))
    rounded = {purpose: round(amount) for purpose, amount in exact.items()}
    # Rounding by purpose must not make the parts differ from the whole.
    rounded[max(rounded, key=lambda purpose: rounded[purpose])] += bill.high - sum(rounded.values())
    return {purpose: amount for purpose, amount in rounded.items() if amount}


def _charge(item: InstanceBill, moment: datetime) -> float:
    """Return what an instance had cost by a moment, micro-dollars."""
    used = ((min(max((moment - hour.start).total_seconds(), 0), hour.seconds), hour) for hour in item.hours)
    return sum(hour.usd * seconds / hour.seconds for seconds, hour in used)


def spent(bill: Bill, moment: datetime) -> MicroUSD:
    """Return what the run had cost by a moment; what is no instance is spread evenly over its life."""
    return round(sum(_charge(item, moment) for item in bill.instances) + _other(bill, moment))


def spent_on_demand(bill: Bill, moment: datetime) -> MicroUSD:
    """Return what it would have cost by then at the on-demand price, all else included."""
    shares = (
        item.on_demand_usd * min(max((moment - item.start).total_seconds(), 0), item.seconds) / item.seconds
        for item in bill.instances
    )
    return round(sum(shares) + _other(bill, moment))


def _other(bill: Bill, moment: datetime) -> float:
    if not bill.instances:
        return 0.0
    begin, end = begin_of(bill, moment), max(end_of(item) for item in bill.instances)
    share = (min(max(moment, begin), end) - begin) / (end - begin)
    return sum(line.usd for line in bill.other) * share


def epoch_costs(bill: Bill, points: Sequence[Point]) -> tuple[tuple[int, MicroUSD], ...]:
    """Return the number of each epoch and what passed while it was trained, interruptions within it included.

    Where lines pass over an epoch, its cost is in the next one that they mark.
    """
    if not points:
        return ()
    costs, before = [], spent(bill, points[0].time)
    for epoch, moment in epoch_ends(points):
        now = spent(bill, moment)
        costs.append((epoch, now - before))
        before = now
    return tuple(costs)


def milestones(bill: Bill, points: Sequence[Point], figure: str) -> tuple[Milestone, ...]:
    """Return every new best of a figure with the time and the money it took."""
    found = []
    for point in records(points, figure):
        passed = (point.time - begin_of(bill, point.time)).total_seconds()
        value = point.figure(figure) or 0.0
        money = spent(bill, point.time), spent_on_demand(bill, point.time)
        found.append(Milestone(figure, value, point.time, passed, *money))
    return tuple(found)
