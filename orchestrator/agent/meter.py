"""How far staging is and how fast: for the beacon in a file, for a person in a line now and then."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.units import format_size

WRITE_EVERY = 0.5
SAY_EVERY = 5.0
# A rate over less than this is noise.
LEAST_SECONDS = 0.1


class Meter:
    """Counts bytes by phase. `totals` are the bytes of each phase, in order.

    It keeps `{"staged", "to_stage", "phases": [[staged, to_stage], ...], "came", "rate"}` in `file`: bytes, of which
    `came` from S3 now, at `rate` bytes a second.
    """

    def __init__(self, file: Path, totals: Mapping[int, int], say: Callable[[str], None]) -> None:
        self._file = file
        self._totals = dict(sorted(totals.items()))
        self._counts = dict.fromkeys(self._totals, 0)
        self._say = say
        self._lock = threading.Lock()
        self._came = 0
        self._began = self._said = time.monotonic()
        self._written = 0.0

    def found(self, count: int, phase: int = 0) -> None:
        """Take `count` bytes that were here already."""
        with self._lock:
            self._counts[phase] += count
            self._tell()

    def add(self, count: int, phase: int = 0) -> None:
        """Take `count` bytes that came (fewer, when negative: a file is fetched again)."""
        with self._lock:
            self._counts[phase] += count
            self._came += count
            self._tell()

    def write(self) -> None:
        """Write down how far it is, now: at the end, and before nothing may come for a while."""
        with self._lock:
            self._write()

    @property
    def rate(self) -> float:
        """Bytes a second since the beginning."""
        return max(0, self._came) / max(time.monotonic() - self._began, LEAST_SECONDS)

    def _tell(self) -> None:
        now, total, count = time.monotonic(), sum(self._totals.values()), sum(self._counts.values())
        if now - self._written >= WRITE_EVERY or count >= total:
            self._written = now
            self._write()
        if now - self._said >= SAY_EVERY and count < total:
            self._said = now
            left = f", {round((total - count) / self.rate)}s left" if self._came else ""
            self._say(f"staged {format_size(count)} of {format_size(total)}, {format_size(self.rate)}/s{left}")

    def _write(self) -> None:
        phases = [[self._counts[phase], total] for phase, total in self._totals.items()]
        value: dict[str, Any] = {
            "staged": sum(self._counts.values()),
            "to_stage": sum(self._totals.values()),
            "phases": phases,
            "came": self._came,
            "rate": round(self.rate),
        }
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(value))
        fresh.replace(self._file)
