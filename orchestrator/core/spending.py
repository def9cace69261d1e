"""Where the money of a run went: its bill laid over the course of its training. Pure.

Made of what S3 holds after the run: instances, the bill, progress lines, the nodes' last beacons. What those do not
say apart is not told apart: booting, staging and setup are one sum, since no node records when each of them ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.core.bill import Bill, InstanceBill
from orchestrator.core.course import Point, Span, epoch_ends, records
from orchestrator.core.units import MicroUSD

# What money was spent on, in the order of a run.
BOOT, START, TRAINING, EVALUATING, SAVING, LOST, IDLE, UNKNOWN, DISKS = PURPOSES = (
    "boot, data and setup", "starting the training", "training", "evaluating", "saving", "work done twice",
    "waiting and ending", "unknown", "disks",
)  # fmt: skip
OF_KIND = {"training": TRAINING, "evaluating": EVALUATING, "saving": SAVING, "lost": LOST}


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


def lives(bill: Bill, spans: Sequence[Span], started: Mapping[str, float]) -> tuple[Life, ...]:
    """Return what every billed second of every instance was for, instance by instance, without gaps.

    `started` is when the `run` command began on an instance (Unix, seconds), where that is known. Without any progress
    line nothing after that is known.
    """
    return tuple(part for item in bill.instances for part in _life(item, spans, started.get(item.instance_id)))


def _life(item: InstanceBill, spans: Sequence[Span], started: float | None) -> Iterable[Life]:
    begin, end = item.start, end_of(item)
    # A minute is billed of what lived for less: in the rest of it others may train, this one does not.
    gone = min(item.end or end, end)
    inside = [
        (max(span.begin, begin), min(span.end, gone), OF_KIND[span.kind])
        for span in spans
        if span.begin < gone and span.end > begin
    ]
    first = inside[0][0] if inside else gone
    ran = min(first, begin + timedelta(seconds=max(0.0, started - begin.timestamp()))) if started else None
    if ran is not None:
        inside = [(begin, ran, BOOT), (ran, first, START if inside or spans else UNKNOWN), *inside]
    else:
        inside = [(begin, first, BOOT if inside or spans else UNKNOWN), *inside]
    at = begin
    for left, right, purpose in [*inside, (end, end, IDLE)]:
        if at < left:
            yield Life(item.instance_id, at, left, IDLE)
        if left < right:
            yield Life(item.instance_id, left, right, purpose)
        at = max(at, right)


def by_purpose(bill: Bill, parts: Iterable[Life]) -> dict[str, MicroUSD]:
    """Return what each purpose cost, in the order of `PURPOSES`, without those of nothing; adds up to `bill.high`."""
    items = {item.instance_id: item for item in bill.instances}
    exact = dict.fromkeys(PURPOSES, 0.0)
    for part in parts:
        item = items[part.instance_id]
        exact[part.purpose] += _charge(item, part.end) - _charge(item, part.begin)
    exact[DISKS] = float(sum(line.usd for line in bill.other))
    rounded = {purpose: round(amount) for purpose, amount in exact.items()}
    # Rounding by purpose must not make the parts differ from the whole.
    rounded[max(rounded, key=lambda purpose: rounded[purpose])] += bill.high - sum(rounded.values())
    return {purpose: amount for purpose, amount in rounded.items() if amount}


def _charge(item: InstanceBill, moment: datetime) -> float:
    """Return what an instance had cost by a moment, micro-dollars."""
    used = ((min(max((moment - hour.start).total_seconds(), 0), hour.seconds), hour) for hour in item.hours)
    return sum(hour.usd * seconds / hour.seconds for seconds, hour in used)


def spent(bill: Bill, moment: datetime) -> MicroUSD:
    """Return what the run had cost by a moment; disks are spread evenly over its life."""
    return round(sum(_charge(item, moment) for item in bill.instances) + _disks(bill, moment))


def spent_on_demand(bill: Bill, moment: datetime) -> MicroUSD:
    """Return what it would have cost by then at the on-demand price, disks included."""
    shares = (
        item.on_demand_usd * min(max((moment - item.start).total_seconds(), 0), item.seconds) / item.seconds
        for item in bill.instances
    )
    return round(sum(shares) + _disks(bill, moment))


def _disks(bill: Bill, moment: datetime) -> float:
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
