"""How far a build or a staging has come, as whoever shows it wants to know. Prints nothing."""

from __future__ import annotations

import threading
from typing import Literal, Protocol

# In this order; not every one has all of them. Packing counts images, the others bytes.
Stage = Literal["fetching", "packing", "reading", "uploading", "joining", "staging"]


class Progress(Protocol):
    """Where it is shown. Called from several threads, by one at a time."""

    def at(self, stage: Stage, done: int, total: int) -> None:
        """Show that `done` of `total` bytes (images, while packing) are through this stage."""

    def say(self, text: str) -> None:
        """Show a line that stays."""


class Tally:
    """Counts the bytes of one stage; `moved` are those that came over the network now, `kept` were there before."""

    def __init__(self, progress: Progress, stage: Stage, total: int) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._lock = threading.Lock()
        self.moved = self.kept = 0

    def move(self, count: int) -> None:
        """Take `count` more bytes that were moved (fewer, when negative: some are moved again)."""
        with self._lock:
            self.moved += count
            self._show()

    def keep(self, count: int) -> None:
        """Take `count` more bytes that need not be moved."""
        with self._lock:
            self.kept += count
            self._show()

    def _show(self) -> None:
        self._progress.at(self._stage, min(self.moved + self.kept, self._total), self._total)
