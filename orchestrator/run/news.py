"""What of a run is worth telling somebody who does not watch it: its end, interruptions, a cap that is near. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from orchestrator.core.caps import warnings
from orchestrator.core.facts import EC2_INTERRUPTED
from orchestrator.core.units import counted, first_of, format_duration, format_usd
from orchestrator.run.view import RunView

Event = Literal["finished", "failed", "interrupted", "cap-near"]
_GOOD = frozenset({"finished", "stopped"})


@dataclass(frozen=True, slots=True)
class News:
    """One message. `key` names it within its run: what was told under a key is not told again."""

    key: str
    event: Event
    text: str


def news_of(view: RunView, told: Collection[str]) -> list[News]:
    """Return what `view` has that was not told before."""
    found = [item for item in (_interruption(view, told), *_caps(view), _end(view)) if item is not None]
    return [item for item in found if item.key not in told]


def _interruption(view: RunView, told: Collection[str]) -> News | None:
    """Tell instances that EC2 took together: the first of them that is new gives the message its key."""
    taken = [i for i in view.facts.instances if i.end_reason in EC2_INTERRUPTED]
    fresh = sorted(i.instance_id for i in taken if f"interrupted-{i.instance_id}" not in told)
    if not fresh:
        return None
    text = f"{view.spec.run_id}: EC2 took {counted(len(fresh), 'node')} back ({first_of(fresh, 3)})"
    return News(f"interrupted-{fresh[0]}", "interrupted", f"{text}; {_cost(view)}")


def _caps(view: RunView) -> list[News]:
    if view.ended:
        return []
    near = warnings(view.spec, view.ledger, view.bill.high, view.facts.server_time)
    return [News(f"cap-{item.key}", "cap-near", f"{view.spec.run_id} {item.text}") for item in near]


def _end(view: RunView) -> News | None:
    if not view.ended or view.verdict is None:
        return None
    kind: Event = "finished" if view.phase in _GOOD else "interrupted" if view.phase == "interrupted" else "failed"
    took = format_duration(view.lasted)
    said = "" if view.phase in _GOOD else f": {view.verdict.message}"
    return News(
        f"end-{view.ledger.generation}", kind, f"{view.spec.run_id} {view.phase} after {took}{said}; {_cost(view)}"
    )


def _cost(view: RunView) -> str:
    return f"{format_usd(view.bill.high)}, on-demand {format_usd(view.bill.on_demand)}"
