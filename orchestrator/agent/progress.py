"""Following ORCH_PROGRESS_FILE, whatever a training script writes there: half lines, garbage, lines without end."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LONGEST_LINE = 64 * 1024
CHUNK = 1 << 20
TOTALS = frozenset({"epochs", "steps"})


class ProgressTail:
    """Reads new lines of the file.

    `last` is the newest line with a step, with the totals said before; `stopped` the step of a `stopped` event.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._skipping = False
        self.last: Mapping[str, Any] | None = None
        self.stopped: int | None = None

    def read(self) -> list[dict[str, Any]]:
        """Return the JSON objects of the lines completed since the last call; anything else is passed over."""
        lines: list[dict[str, Any]] = []
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset, self._rest, self._skipping = 0, b"", False
                file.seek(self._offset)
                while piece := file.read(CHUNK):
                    self._offset += len(piece)
                    lines += self._split(piece)
        except FileNotFoundError:
            return []
        for line in lines:
            self._note(line)
        return lines

    def _split(self, piece: bytes) -> list[dict[str, Any]]:
        *whole, self._rest = (self._rest + piece).split(b"\n")
        if self._skipping and whole:
            del whole[0]
            self._skipping = False
        if len(self._rest) > LONGEST_LINE:
            self._rest, self._skipping = b"", True
        return [value for line in whole if (value := parse_line(line)) is not None]

    def _note(self, line: Mapping[str, Any]) -> None:
        step = line.get("step")
        if isinstance(step, bool) or not isinstance(step, int):
            return
        # How much there is to do may be said once, at the start.
        self.last = {name: value for name, value in (self.last or {}).items() if name in TOTALS} | {**line}
        if line.get("event") == "stopped":
            self.stopped = step


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line, None when it is none. NaN and infinities, which JSON lacks, become texts."""
    if not 2 <= len(line) <= LONGEST_LINE:
        return None
    try:
        value = json.loads(line, parse_constant=str, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def brief(line: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the plain figures of a progress line, for the beacon: no containers, no long texts, 40 at most."""
    if line is None:
        return None
    return dict([item for item in line.items() if _is_plain(item[1])][:40])


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 100)


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text
