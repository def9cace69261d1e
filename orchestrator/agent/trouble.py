"""What ran out on a machine when its training failed: memory, the GPU's memory, or room on the disk. Reads only."""

from __future__ import annotations

import os
import re
from pathlib import Path

from orchestrator.core.beacon import Trouble

VMSTAT = Path("/proc/vmstat")
# torchrun alone puts forty lines behind the words of the rank that failed.
BYTES = 64 * 1024
# A disk with less than this is full, whatever was said: the words for it may have had no room. More than what `run.sh`
# gives back at the end to have room for its own.
FULL = 4 * 2**20

_GPU = re.compile(r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory")
_DISK = re.compile(r"No space left on device|Errno 28\b|Disk quota exceeded")
_MEMORY = re.compile(r"\bMemoryError\b|std::bad_alloc|Cannot allocate memory|can't allocate memory|not enough memory:")
_KILLED = re.compile(r"\bSIGKILL\b|exitcode *: -9\b|killed by signal: Killed|\bKilled$", re.MULTILINE)
# What torchrun tells last: the rank that failed first. Others it ended itself, in the end by SIGKILL.
_FIRST = "Root Cause (first observed failure)"


def find_trouble(said: str, code: int | None, oom_kills: int, free: int) -> Trouble | None:
    """Return what ran out, None when nothing says so.

    `said` is the end of the output, `code` how `run` ended (None: it vanished), `oom_kills` how many processes the
    kernel ended meanwhile because there was no memory, `free` the bytes left on the disk.
    """
    if _GPU.search(said):
        return "gpu-memory"
    if _DISK.search(said) or free < FULL:
        return "disk"
    killed = code in {None, 137} or _KILLED.search(said.rpartition(_FIRST)[2]) is not None
    if _MEMORY.search(said) or (killed and oom_kills):
        return "memory"
    return "killed" if killed and code is not None else None


def read_end(log: Path) -> str:
    """Return the end of the output, "" when it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - BYTES))
            return file.read(BYTES).decode(errors="replace")
    except OSError:
        return ""


def count_oom_kills(file: Path = VMSTAT) -> int:
    """Return how many processes the kernel has ended since the boot because memory ran out, 0 where it does not say."""
    try:
        words = (line.split() for line in file.read_text().splitlines())
        return next((int(word[1]) for word in words if word[0] == "oom_kill"), 0)
    except (OSError, ValueError, IndexError):
        return 0


def free_bytes(folder: Path) -> int:
    """Return how much more may be written to the disk of `folder`. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
