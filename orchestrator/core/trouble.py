"""What a user is told of a machine on which something ran out: what happened, what to do, and the code of it. Pure."""

from __future__ import annotations

from orchestrator.core.beacon import Beacon
from orchestrator.core.units import format_size

DISK_FULL = "disk-full"
OUT_OF_MEMORY = "out-of-memory"

_MORE_MEMORY = "take a type with more memory, a smaller batch or fewer loader workers"


def explain(beacon: Beacon) -> tuple[str, str, str]:
    """Return what ran out, what to do about it, and a code; each is "" when nothing did."""
    match beacon.trouble:
        case "memory":
            return "the machine's memory ran out", _MORE_MEMORY, OUT_OF_MEMORY
        case "gpu-memory":
            advice = "take a smaller batch on each GPU, or a type whose GPUs have more memory"
            return "the GPU's memory ran out", advice, OUT_OF_MEMORY
        case "killed":
            advice = f"if nobody killed it by hand, {_MORE_MEMORY}"
            return "it was killed by SIGKILL, as happens when memory runs out", advice, ""
        case "disk":
            left = "" if beacon.disk_free is None else f" ({format_size(beacon.disk_free)} of its disk are free)"
            advice = "raise resources.disk_size; where much of the disk is free, /dev/shm or a quota is full"
            return f"no space was left{left}", advice, DISK_FULL
        case None:
            return "", "", ""
