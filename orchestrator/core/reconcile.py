"""Our bill held against what AWS charged, line by line: differences named, the bill marked. Pure.

Two amounts are the same when they differ by no more than the digits of the file leave open and the rounding of our own
lines. Lines of resources that are not this run's are left alone: AWS's files are an account's, not a run's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from orchestrator.core.bill import Bill, HourLine, InstanceBill
from orchestrator.core.charged import Charged
from orchestrator.core.units import MicroUSD, iso, usd

SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same on both sides; `where` is file and line, or says that there is none."""

    where: str
    resource: str
    start: datetime
    what: str
    ours: MicroUSD
    theirs: MicroUSD

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "where": self.where,
            "resource": self.resource,
            "start": iso(self.start),
            "what": self.what,
            "ours_usd": usd(self.ours),
            "theirs_usd": usd(self.theirs),
        }


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What came of it: `matched` lines that agree, `ours` and `theirs` what was compared, `notes` in words.

    `machines` is what all instances of the bill cost.
    """

    files: tuple[str, ...]
    matched: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    ours: MicroUSD
    theirs: MicroUSD
    machines: MicroUSD

    @property
    def reconciled(self) -> bool:
        """Whether every charge that could be compared was found, and is the same."""
        return not self.differences and self.matched > 0

    def to_json(self) -> dict[str, Any]:
        """Return the documented JSON form. `machines_usd` tells to which state of the bill it belongs."""
        return {
            "reconciled": self.reconciled,
            "files": list(self.files),
            "matched": self.matched,
            "ours_usd": usd(self.ours),
            "theirs_usd": usd(self.theirs),
            "machines_usd": usd(self.machines),
            "differences": [item.to_json() for item in self.differences],
            "notes": list(self.notes),
        }


class _Comparison:
    """One comparison in the making."""

    def __init__(self) -> None:
        self.matched = 0
        self.ours = self.theirs = 0
        self.differences: list[Difference] = []
        self.notes: list[str] = []

    def compare(self, lines: Sequence[Charged], ours: MicroUSD, rounding: int, what: str) -> None:
        """Hold lines of one hour or window against our amount; `what` is "" or something else that differs."""
        theirs = sum(line.cost.usd for line in lines)
        slack = sum(line.cost.slack for line in lines) + rounding
        self.ours, self.theirs = self.ours + ours, self.theirs + theirs
        if abs(theirs - ours) <= slack and not what:
            self.matched += len(lines)
            return
        first = lines[0]
        self.differences.append(Difference(_where(lines), first.resource, first.start, what or "amount", ours, theirs))

    def missing(self, item: InstanceBill, start: datetime, seconds: int, ours: MicroUSD) -> None:
        """Name seconds of ours that no line of AWS covers."""
        self.ours += ours
        what = f"{seconds} s of {item.lifecycle} {item.instance_type} that AWS does not list"
        self.differences.append(Difference("not in the files", item.instance_id, start, what, ours, 0))


def reconcile(bill: Bill, lines: Iterable[Charged], files: Sequence[str]) -> Reconciliation:
    """Return how `bill` compares with `lines`. Callers refuse a bill that is not final."""
    ours = {item.instance_id: item for item in bill.instances}
    volumes = {item.id: item.usd for item in bill.other if item.kind == "ebs"}
    by_kind: dict[str, dict[str, list[Charged]]] = {kind: defaultdict(list) for kind in ("hour", "window", "other")}
    for line in lines:
        if line.resource in ours or line.resource in volumes:
            by_kind[line.kind][line.resource].append(line)
    done = _Comparison()
    for item in bill.instances:
        hours, windows = by_kind["hour"][item.instance_id], by_kind["window"][item.instance_id]
        if hours:
            _by_hour(done, item, hours)
        elif windows:
            _by_window(done, item, windows)
        elif item.low < item.usd:
            done.notes.append(f"{item.instance_id}: EC2 took it within the first hour, and AWS did not charge it")
        elif item.lifecycle == "on-demand" and not any(by_kind["window"].values()):
            done.notes.append(f"{item.instance_id}: on-demand, of which a spot data feed says nothing")
        else:
            done.missing(item, item.start, item.seconds, item.usd)
    _others(done, by_kind["other"], volumes)
    return Reconciliation(
        tuple(files), done.matched, tuple(done.differences), tuple(done.notes), done.ours, done.theirs, bill.machines
    )


def _by_hour(done: _Comparison, item: InstanceBill, lines: Sequence[Charged]) -> None:
    """Compare instance-hours: a line belongs to the hour that began nearest to its timestamp."""
    if _waived(done, item, lines):
        return
    at: dict[int, list[Charged]] = defaultdict(list)
    for line in lines:
        at[round((line.start - item.start) / timedelta(hours=1))].append(line)
    for index, hour in enumerate(item.hours):
        if index in at:
            done.compare(at[index], hour.usd, 1, _price_differs(at[index], hour))
        else:
            done.missing(item, hour.start, hour.seconds, hour.usd)
    for index in sorted(at.keys() - set(range(len(item.hours)))):
        done.compare(at[index], 0, 0, "an hour that is not in the bill")


def _price_differs(lines: Sequence[Charged], hour: HourLine) -> str:
    for line in lines:
        if line.price is not None and abs(line.price.usd - hour.price) > line.price.slack:
            return f"price {usd(line.price.usd)} an hour there, {usd(hour.price)} here"
    return ""


def _by_window(done: _Comparison, item: InstanceBill, lines: Sequence[Charged]) -> None:
    """Compare windows of the clock; every second of ours must be in one."""
    if _waived(done, item, lines):
        return
    windows: dict[tuple[datetime, datetime], list[Charged]] = defaultdict(list)
    for line in lines:
        windows[line.start, line.end or line.start].append(line)
    for (start, end), inside in sorted(windows.items()):
        parts = [(hour, _overlap(hour, start, end)) for hour in item.hours]
        amount = round(sum(Fraction(hour.price * seconds, 3600) for hour, seconds in parts))
        seconds, theirs = sum(part for _, part in parts), sum(line.seconds or 0 for line in inside)
        what = f"{theirs} s there, {seconds} s here" if seconds != theirs else ""
        done.compare(inside, amount, 1 + len(inside), what)
    for hour in item.hours:
        left = hour.seconds - sum(_overlap(hour, start, end) for start, end in windows)
        if left > 0:
            done.missing(item, hour.start, left, round(Fraction(hour.price * left, 3600)))


def _waived(done: _Comparison, item: InstanceBill, lines: Sequence[Charged]) -> bool:
    """Whether AWS waived what our bill leaves open: lines of nothing are what the low bound says."""
    if item.low == item.usd or any(line.cost.usd for line in lines):
        return False
    done.matched += len(lines)
    done.notes.append(f"{item.instance_id}: EC2 took it within the first hour, and AWS charged $0")
    return True


def _overlap(hour: HourLine, start: datetime, end: datetime) -> int:
    """Return the seconds of an hour's line that lie in [start, end)."""
    last = hour.start + hour.seconds * SECOND
    return max(0, (min(last, end) - max(hour.start, start)) // SECOND)


def _others(done: _Comparison, lines: Mapping[str, Sequence[Charged]], volumes: Mapping[str, MicroUSD]) -> None:
    """Put AWS's figure beside our estimates; name what it charged for our instances that no line of ours is for."""
    for resource, charged in lines.items():
        theirs = sum(line.cost.usd for line in charged)
        if resource in volumes:
            done.notes.append(f"ebs {resource}: estimate ${usd(volumes[resource])}, AWS ${usd(theirs)}")
            continue
        for line in charged:
            if line.cost.usd:
                done.compare([line], 0, 0, f"{line.usage}, which is not in the bill")


def _where(lines: Sequence[Charged]) -> str:
    numbers = ", ".join(str(line.line) for line in lines)
    return f"{lines[0].file} line{'s' * (len(lines) > 1)} {numbers}"
