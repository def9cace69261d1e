"""From the launch to the first step, node by node and stage by stage: where the time went. Pure.

Made of the ledger (when EC2 was asked and answered, by S3's clock) and of the marks in the nodes' last beacons (by
their own clocks). A stage that was never left ends with its start of the training, as the ledger and EC2 tell it. One
whose begin or end nobody recorded is left out, never guessed; clocks that disagree give 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.core.beacon import Beacon, Mark
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.ledger import LedgerState
from orchestrator.core.units import parse_time

# In the order of a node's life, each with the mark at which it begins; the first two begin with the launch.
STAGES = ("request", "boot", "bundle", "ssh", "preflight", "staging", "setup", "rendezvous", "first step")
_OF_MARK = {
    "bundle": "bundle", "ready": "ssh", "starting": "ssh", "preflight": "preflight", "staging": "staging",
    "setup": "setup", "running": "rendezvous", "progress": "first step",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NodeStart:
    """One start of the training on one node.

    `seconds` holds those of each stage that was entered, in order; of the one it is in (`now`, None once the first
    step was made) those until the node was last heard, but none of `rendezvous`: a script may never tell that it is
    past it. `total` is from `begin` until then, None where that is not known. A machine that is kept from the
    generation before begins with the start command.
    """

    instance_id: str
    rank: int
    generation: int
    begin: float | None
    seconds: Mapping[str, float]
    now: str | None
    total: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, seconds with three places."""
        return {
            "instance_id": self.instance_id,
            "rank": self.rank,
            "generation": self.generation,
            "stages": {name: round(value, 3) for name, value in self.seconds.items()},
            "now": self.now,
            "total": None if self.total is None else round(self.total, 3),
        }


def node_starts(created: datetime, ledger: LedgerState, facts: Facts) -> tuple[NodeStart, ...]:
    """Return every start of the training on every node that told of one, in order of generation and rank.

    And those on nodes that were found unfit before they told of it.
    """
    beacons = {i: node.beacon for i, node in facts.nodes.items() if node.beacon is not None}
    firsts = _gang_marks(beacons.values())
    ends = _Ends(ledger, facts)
    found: dict[tuple[int, str], NodeStart] = {}
    for instance_id, beacon in beacons.items():
        generations = sorted({mark.generation for mark in beacon.times if mark.generation})
        for index, generation in enumerate(generations):
            own = [m for m in beacon.times if m.generation == generation or (index == 0 and m.generation == 0)]
            asked = _asked(created, ledger, instance_id, generation)
            marks = [*own, *firsts.get(generation, ())]
            end = ends.of(beacon, generation)
            found[generation, instance_id] = _start(instance_id, beacon, generation, marks, asked, end)
    for recovery in ledger.recoveries:
        for instance_id, rank in Gang.of(ledger.ended_by(recovery), facts).ranks.items():
            key = recovery.generation, instance_id
            if instance_id in recovery.unfit and key not in found and recovery.time is not None:
                asked = _asked(created, ledger, instance_id, recovery.generation)
                found[key] = _untold(instance_id, rank, recovery.generation, asked, recovery.time.timestamp())
    return tuple(sorted(found.values(), key=lambda item: (item.generation, item.rank, item.instance_id)))


@dataclass(frozen=True, slots=True)
class _Ends:
    """When starts ended, stepped or not."""

    ledger: LedgerState
    facts: Facts

    def of(self, beacon: Beacon, generation: int) -> float | None:
        """Return when a start on the node that told `beacon` ended (Unix time), None while it goes on.

        That is the first of: its own exit, its machine's end, the recovery or the resume after it, the run's end.
        """
        machine = next((item for item in self.facts.instances if item.instance_id == beacon.instance_id), None)
        said = [parse_time(beacon.exit_time)] if beacon.exit_time and generation == beacon.generation else []
        said += [item.time for item in self.ledger.recoveries if item.generation == generation and item.time]
        said += [machine.end_time] if machine is not None and machine.end_time is not None else []
        if self.ledger.closed_at is not None and generation == self.ledger.generation:
            said.append(self.ledger.closed_at)
        found = [moment.timestamp() for moment in said]
        found += [mark.time for mark in beacon.times if mark.generation > generation]
        if not found and (generation < self.ledger.generation or beacon.exit_code is not None):
            return parse_time(beacon.time).timestamp()
        return min(found, default=None)


def _untold(instance_id: str, rank: int, generation: int, asked: tuple[float, float] | None, end: float) -> NodeStart:
    """Return what is known of a start on a node that never told of it: how far it came is not."""
    if asked is None:
        return NodeStart(instance_id, rank, generation, None, {}, None, None)
    seconds = {"request": max(0.0, asked[1] - asked[0])}
    return NodeStart(instance_id, rank, generation, asked[0], seconds, None, max(0.0, end - asked[0]))


def _gang_marks(beacons: Iterable[Beacon]) -> dict[int, list[Mark]]:
    """Return by generation the first progress line and the first step that any node told: the whole gang made them."""
    found: dict[int, dict[str, Mark]] = {}
    for mark in (mark for beacon in beacons for mark in beacon.times if mark.stage in {"progress", "step"}):
        of = found.setdefault(mark.generation, {})
        of[mark.stage] = min(of.get(mark.stage, mark), mark)
    return {generation: list(marks.values()) for generation, marks in found.items()}


def _asked(created: datetime, ledger: LedgerState, instance_id: str, generation: int) -> tuple[float, float] | None:
    """Return when the launch that gave this instance began and when EC2 had answered it; None for one that was kept.

    It begins with the first request of its generation, with what was refused before; that of a run with the command.
    """
    mine = [item for item in ledger.launches if item.generation == generation]
    gave = next((item for item in mine if instance_id in item.instance_ids), None)
    if gave is None or mine[0].asked is None:
        return None
    return (created if generation == 1 else mine[0].asked).timestamp(), gave.time.timestamp()


def _start(  # noqa: PLR0917 - made in one place
    instance_id: str,
    beacon: Beacon,
    generation: int,
    marks: Sequence[Mark],
    asked: tuple[float, float] | None,
    ended: float | None,
) -> NodeStart:
    launch = [] if asked is None else [(asked[0], "request"), (asked[1], "boot")]
    begins = [*launch, *((m.time, _OF_MARK[m.stage]) for m in _once(marks) if m.stage in _OF_MARK)]
    stepped = next((mark.time for mark in marks if mark.stage == "step"), None)
    # A script that has not reported yet may never do so: how long it waits for its peers is not known.
    silent = any(m.stage == "running" for m in marks) and all(m.stage != "progress" for m in marks)
    # Nor how long the first step took of one that tells progress and no steps, once it has ended.
    untold = silent or (ended is not None and any(m.stage == "progress" for m in marks))
    end = stepped
    if stepped is None and not untold:
        end = parse_time(beacon.time).timestamp() if ended is None else ended
    going = stepped is None and ended is None
    seconds: dict[str, float] = {}
    for index, (begin, stage) in enumerate(begins):
        until = begins[index + 1][0] if index + 1 < len(begins) else end
        if until is not None:
            seconds[stage] = seconds.get(stage, 0.0) + max(0.0, until - begin)
    ordered = {name: seconds[name] for name in STAGES if name in seconds}
    begin_of_all = begins[0][0] if begins else None
    latest = end if end is not None else (begins[-1][0] if begins else None)
    total = None if begin_of_all is None or latest is None else max(0.0, latest - begin_of_all)
    now = begins[-1][1] if begins and going else None
    return NodeStart(instance_id, beacon.rank, generation, begin_of_all, ordered, now, total)


def _once(marks: Iterable[Mark]) -> list[Mark]:
    """Return the marks in order of time, each stage once: the first time it was entered."""
    seen: dict[str, Mark] = {}
    for mark in sorted(marks, key=lambda mark: mark.time):
        seen.setdefault(mark.stage, mark)
    return list(seen.values())
