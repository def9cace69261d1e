"""What the training says: JSON lines in the progress file (rank 0), and plain lines on stdout for a person.

May be called from the thread that writes checkpoints; a line is written whole.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Progress:
    """Appends to the progress file. Every line has all of `FIELDS`: what is left out keeps its last value."""

    FIELDS = ("step", "epoch", "loss", "lr", "image_size", "images_per_second")

    def __init__(self, file: Path | None) -> None:
        """Write to `file`, or nowhere when it is None (ranks other than 0)."""
        self._file = file
        self._last: dict[str, Any] = dict.fromkeys(self.FIELDS)
        self._lock = threading.Lock()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.exists() and not file.read_bytes().endswith(b"\n"):
                with file.open("ab") as torn:  # a process killed while it wrote
                    torn.write(b"\n")

    def end(self) -> int:
        """Return the size of the file in bytes: where the next line begins."""
        return self._file.stat().st_size if self._file is not None and self._file.exists() else 0

    def write(self, event: str | None = None, **values: Any) -> None:
        """Append one line: the time (Unix, seconds), `event` if it is one, and `values`."""
        if self._file is None:
            return
        with self._lock:
            self._last.update({name: value for name, value in values.items() if name in self.FIELDS})
            line = {"time": round(time.time(), 3)} | ({"event": event} if event else {}) | self._last | values
            with self._file.open("a") as file:
                file.write(json.dumps(line) + "\n")


class Console:
    """Prints to stdout, each line with the rank in front once there are several."""

    def __init__(self, rank: int, world: int) -> None:
        self._prefix = f"[rank {rank}] " if world > 1 else ""

    def say(self, text: str) -> None:
        """Print one line, at once."""
        sys.stdout.write(f"{self._prefix}{text}\n")
        sys.stdout.flush()
