"""When each stage of this node's life began: read for the beacon, and the first steps of the training added.

The boot script and `run.sh` write the same file. What is in it that is no mark is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.beacon import Mark

# Of a node that began so often that a beacon would grow, the boot and the newest are told.
MOST_MARKS = 80


def read_marks(file: Path) -> tuple[Mark, ...]:
    """Return the marks in order; none when there is no file."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    marks = [mark for line in lines if (mark := _mark(line)) is not None]
    boot = [mark for mark in marks if mark.generation == 0]
    return (*boot[:MOST_MARKS], *[mark for mark in marks if mark.generation][-MOST_MARKS:])


def _mark(line: str) -> Mark | None:
    try:
        generation, stage, moment = line.split()
        return Mark(int(generation), stage, float(moment))
    except ValueError:
        return None


def mark_firsts(file: Path, known: Iterable[Mark], generation: int, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add when the first of the generation's progress lines came, and the first that tells a step, unless known."""
    told = {mark.stage for mark in known if mark.generation == generation}
    for line in lines:
        step = line.get("step")
        stepped = isinstance(step, int) and line.get("event") != "start"
        for stage in ("progress", "step") if stepped else ("progress",):
            if stage not in told:
                told.add(stage)
                with file.open("a") as open_file:
                    open_file.write(f"{generation} {stage} {_time(line):.3f}\n")


def _time(line: Mapping[str, Any]) -> float:
    """Return when a line was written, as it says itself; one that does not came just now."""
    said, now = line.get("time"), time.time()
    return float(said) if isinstance(said, int | float) and 0 < said < now + 60 else now
