"""A gang of four that trains and loses nodes, for tests of what is decided about it: values, and what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.actions import Action, End, Recover
from orchestrator.core.beacon import Beacon
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts, Instance
from orchestrator.core.ledger import Recovery, Verdict
from orchestrator.core.spec import RunSpec
from tests.core.worlds import Book, at, beacon, facts, instance, spec

FOUR = ("i-0", "i-1", "i-2", "i-3")
TAKEN = {"end_reason": "Server.SpotInstanceTermination"}


def four() -> Book:
    return Book().tried(1, 0, "launched", ids=FOUR)


def gang_of_four(**experiment: Any) -> RunSpec:
    return spec(4, **experiment)


def taken(index: int, seconds: float, **changes: Any) -> Instance:
    return instance(index, "terminated", **(TAKEN | {"end_time": at(seconds)} | changes))


def world(seconds: float, gone: Sequence[Instance] = (), said: Sequence[Beacon] = (), **changes: Any) -> Facts:
    """Four nodes that train and are heard, but for those in `gone`; `said` are beacons that differ."""
    away = {item.instance_id for item in gone}
    known = {f"i-{i}": beacon(i, seconds=seconds) for i in range(4)} | {b.instance_id: b for b in said}
    machines = [instance(i) for i in range(4) if f"i-{i}" not in away] + list(gone)
    recorded = {"recorded": {item.instance_id: item.state for item in gone}}
    return facts(seconds, machines, list(known.values()), **(recorded | changes))


def recovery_of(actions: Sequence[Action]) -> Recovery:
    found = [action.recovery for action in actions if isinstance(action, Recover)]
    assert len(found) == 1, actions
    return found[0]


def verdict_of(actions: Sequence[Action]) -> Verdict:
    found = [action.verdict for action in actions if isinstance(action, End)]
    assert len(found) == 1, actions
    return found[0]


def recovered(book: Book, seen: Facts, run: RunSpec | None = None) -> Recovery:
    """Record what is decided as `run.act` does, and return it."""
    found = recovery_of(decide(run or gang_of_four(), book.state, seen))
    book.add("intent", "recover", (seen.server_time - at(0)).total_seconds(), **found.to_json())
    return found


def ended(index: int, seconds: float, **changes: Any) -> Beacon:
    return beacon(index, "exited", seconds, **({"exit_code": 75, "synced": True} | changes))
