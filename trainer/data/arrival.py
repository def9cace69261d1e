"""Waiting for files of a data set that are still on their way to this machine, as the node contract has it. No torch.

While a data set arrives there is `.arriving` in its folder: what was not there yet when the training began, a path a
line, locked by whoever brings it. Each file appears under its name when it is whole. `.arriving` goes when all is
there; its first line becomes `failed: <why>` when the rest will not come.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.errors import FAILED, TrainerError

ARRIVING = ".arriving"
GIVEN_UP = "failed: "
PAUSE = 0.1
_HINT = "the lines `orch: ...` in this node's log say more; started again, it goes on with what is missing"


def wait_for(root: Path, files: Sequence[str], say: Callable[[str], None] = lambda _: None) -> float:
    """Wait until `files` of the data set at `root` are there; return for how long, in seconds.

    `say` is told once, with the first that is missing, if there is something to wait for. Files that are missing and
    not on their way are not waited for. Raises TrainerError when they can never come.
    """
    began, told = time.monotonic(), False
    while missing := on_their_way(root, files):
        if not told:
            say(missing[0])
            told = True
        time.sleep(PAUSE)
    return time.monotonic() - began if told else 0.0


def on_their_way(root: Path, files: Sequence[str]) -> list[str]:
    """Return those of `files` that are not there yet and still come. Raises TrainerError when they never will."""
    missing = [name for name in files if not (root / name).exists()]
    if not missing:
        return []
    try:
        lines, held = _read(root / ARRIVING)
    except OSError:
        return []  # nothing is on its way: they came just now, or they are not of this data set
    if lines and lines[0].startswith(GIVEN_UP):
        raise _never(root / missing[0], lines[0].removeprefix(GIVEN_UP))
    coming = [name for name in missing if name in lines and not (root / name).exists()]
    if coming and not held and (root / ARRIVING).exists():
        raise _never(root / coming[0], "what brought the data set here is gone")
    return coming


def _never(file: Path, why: str) -> TrainerError:
    return TrainerError(f"{file} will not come: {why}", _HINT, exit_code=FAILED)


def _read(file: Path) -> tuple[list[str], bool]:
    """Return the lines of a file, and whether somebody holds its lock. Raises OSError."""
    with file.open() as stream:
        lines = stream.read().splitlines()
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lines, True
        return lines, False
