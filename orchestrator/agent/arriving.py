"""What a training may see of data that are still on their way: `.arriving` in the folder of their data set.

It names what was not there when the training began, and is locked by the process that brings it, so that whoever waits
can tell a slow one from a dead one. docs/node-contract.md has it for the authors of training scripts.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from orchestrator.core.contract import ARRIVING, FAILED


class Arriving:
    """Says in each folder of `wanted` which of its files are still to come, and holds the locks until it is closed."""

    def __init__(self, wanted: Mapping[Path, Sequence[Path]]) -> None:
        """Write and lock. Raises OSError."""
        self._files: list[tuple[Path, IO[str]]] = []
        for folder, paths in wanted.items():
            folder.mkdir(parents=True, exist_ok=True)
            fresh = folder / f"{ARRIVING}.new"
            file = fresh.open("w")
            fcntl.flock(file, fcntl.LOCK_EX)
            file.writelines(f"{path.relative_to(folder).as_posix()}\n" for path in paths)
            file.flush()
            fresh.replace(folder / ARRIVING)
            self._files.append((folder, file))

    def done(self) -> None:
        """All is there."""
        clear(folder for folder, _ in self._files)

    def fail(self, why: str) -> None:
        """The rest will not come."""
        for folder, _ in self._files:
            fresh = folder / f"{ARRIVING}.new"
            fresh.write_text(f"{FAILED}{why}\n")
            fresh.replace(folder / ARRIVING)


def clear(folders: Iterable[Path]) -> None:
    """Remove what an earlier start said."""
    for folder in folders:
        with suppress(FileNotFoundError):
            (folder / ARRIVING).unlink()
