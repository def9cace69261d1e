"""How long a training trained, and how long it stood still. Values only: whoever uses it brings the time."""

from __future__ import annotations


class Stopwatch:
    """Counts seconds of training; stands until `go`. Every `now` is of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._trained = 0.0
        self._going_since: float | None = None
        self._standing_since: float | None = None

    def go(self, now: float) -> float:
        """Training goes on; return for how long it stood still (0 when it did not)."""
        stood = 0.0 if self._standing_since is None else now - self._standing_since
        self._standing_since = None
        if self._going_since is None:
            self._going_since = now
        return stood

    def stand(self, now: float) -> None:
        """Training stands still from here."""
        self._trained = self.trained(now)
        self._going_since, self._standing_since = None, now

    def trained(self, now: float) -> float:
        """Return the seconds of training so far."""
        return self._trained + (0.0 if self._going_since is None else now - self._going_since)
