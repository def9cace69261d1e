"""What truly happened in a world, whatever anybody in it believes: what invariants judge by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Effect:
    """Something a scheduler did to the outside: `what`, under which epoch, to what."""

    what: str
    epoch: int
    detail: Any


@dataclass(slots=True)
class Crash:
    """The one place where the crash matrix interferes: at effect `at`, in one way (`test_crash_matrix`)."""

    at: int
    how: str


@dataclass(slots=True)
class Truth:
    """What happened, whatever anybody believes. `hurts`: what was done to machines, by generation."""

    hurts: dict[int, set[str]] = field(default_factory=dict)
    trouble: list[tuple[float, str, str]] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    unreachable: float = 0.0
    damaged: set[int] = field(default_factory=set)
