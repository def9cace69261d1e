"""The pace of a training: how long it pauses between two progress lines. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# So many pauses must have been seen before anything is said about their length.
ENOUGH = 3


class Pace:
    """Follows progress lines by the times in them; where there are none, by when they were read."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._seen = 0
        self._longest = 0.0

    def take(self, lines: Iterable[Mapping[str, Any]], now: float) -> None:
        """Take lines that were read at `now` (Unix seconds)."""
        for line in lines:
            time = line.get("time")
            moment = float(time) if isinstance(time, int | float) and not isinstance(time, bool) else now
            if self._last is not None and moment > self._last:
                self._seen += 1
                self._longest = max(self._longest, moment - self._last)
            self._last = moment if self._last is None else max(moment, self._last)

    @property
    def pause(self) -> float | None:
        """The longest pause in seconds, None before there were enough to tell."""
        return round(self._longest, 1) if self._seen >= ENOUGH else None
