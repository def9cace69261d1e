"""The file of marks: what two writers, a restart and a stranger leave in it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from orchestrator.agent.times import MOST_MARKS, mark_firsts, read_marks
from orchestrator.core.beacon import Mark


def test_the_first_line_and_the_first_step_are_marked_once_whoever_looks(tmp_path: Path) -> None:
    file = tmp_path / "times"
    file.write_text("0 bundle 1.5\n1 running 2.5\n")
    said: list[dict[str, Any]] = [
        {"event": "start", "step": 0, "time": 10.0},
        {"loss": 1, "time": 11.0},
        {"step": 5, "time": 12.0},
    ]
    mark_firsts(file, read_marks(file), 1, said[:1])
    mark_firsts(file, read_marks(file), 1, said[1:])
    mark_firsts(file, read_marks(file), 1, said)
    mark_firsts(file, read_marks(file), 2, [{"step": 6, "time": "soon"}])
    found = read_marks(file)
    assert found[:4] == ((0, "bundle", 1.5), (1, "running", 2.5), (1, "progress", 10.0), (1, "step", 12.0))
    assert [mark[:2] for mark in found[4:]] == [(2, "progress"), (2, "step")]
    assert abs(found[4].time - time.time()) < 600


def test_what_is_no_mark_is_passed_over_and_the_boot_outlives_many_starts(tmp_path: Path) -> None:
    file = tmp_path / "times"
    assert read_marks(file) == ()
    lines = "".join(f"{generation} running {generation}\n" for generation in range(1, 200))
    file.write_bytes(b"0 bundle 1\nhello\n1 \xff\n2 running soon\n" + lines.encode())
    found = read_marks(file)
    assert found[0] == Mark(0, "bundle", 1.0)
    assert found[1:] == tuple(Mark(g, "running", float(g)) for g in range(200 - MOST_MARKS, 200))
