"""Files that were found right before: a data set is not digested again at each start of the training on a node.

A file that was changed since has another size, time or number on its disk; like make and rsync this goes by that.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from pathlib import Path


class Known:
    """Remembers, in `file` (None: nowhere), which files were found to be which version of their object."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._seen: dict[str, list[object]] = {}
        if file is None:
            return
        with suppress(OSError):
            for line in file.read_text().splitlines():
                with suppress(ValueError, TypeError):  # a line that was cut short
                    path, *rest = json.loads(line)
                    self._seen[path] = rest

    def is_right(self, path: Path, size: int, identity: str) -> bool:
        """Tell whether `path` was found to be the object `identity` of `size` bytes, and has not changed since."""
        with suppress(OSError):
            stat = path.stat()
            return stat.st_size == size and self._seen.get(str(path)) == _row(stat, identity)
        return False

    def add(self, path: Path, identity: str) -> None:
        """Remember that `path` is right. Raises OSError."""
        if self._file is None:
            return
        row = _row(path.stat(), identity)
        with self._lock:
            if self._seen.get(str(path)) == row:
                return
            self._seen[str(path)] = row
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as lines:
                lines.write(json.dumps([str(path), *row]) + "\n")


def _row(stat: os.stat_result, identity: str) -> list[object]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, identity]
