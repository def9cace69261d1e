"""The node contract as this trainer reads it: environment in, paths and numbers out. No I/O, no torch.

Everything has a default, so that the trainer also runs under a plain torchrun or as a single process: then
checkpoints, progress and the files of requests lie in the current folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import TrainerError


@dataclass(frozen=True, slots=True)
class Node:
    """What one rank knows of its place: `device` is "cuda", "cpu" or "auto"; `nodes` counts machines.

    `logs` is the folder whose files are kept, None where nobody keeps any; `run` is the id of the run, or "".
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    nodes: int
    device: str
    checkpoints: Path
    progress: Path
    stop: Path
    save: Path
    logs: Path | None = None
    run: str = ""


def read(environ: Mapping[str, str]) -> Node:
    """Return the node described by `environ` (torchrun's names and the contract's). Raises TrainerError."""
    world = _number(environ, "WORLD_SIZE", 1)
    local_world = _number(environ, "LOCAL_WORLD_SIZE", 1)
    device = environ.get("ORCH_DEVICE", "auto")
    if device not in {"cuda", "cpu", "auto"}:
        raise TrainerError(f"ORCH_DEVICE is {device!r}", "set it to cuda or cpu, or leave it out")
    return Node(
        rank=_number(environ, "RANK", 0),
        world=world,
        local_rank=_number(environ, "LOCAL_RANK", 0),
        local_world=local_world,
        nodes=_number(environ, "ORCH_NUM_NODES", max(1, world // local_world)),
        device=device,
        checkpoints=Path(environ.get("ORCH_CHECKPOINT_DIR") or "checkpoints"),
        progress=Path(environ.get("ORCH_PROGRESS_FILE") or "progress.jsonl"),
        stop=Path(environ.get("ORCH_STOP_FILE") or "stop"),
        save=Path(environ.get("ORCH_SAVE_FILE") or "save"),
        logs=Path(environ["ORCH_LOG_DIR"]) if environ.get("ORCH_LOG_DIR") else None,
        run=environ.get("ORCH_RUN_ID", ""),
    )


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise TrainerError(f"{name} is {text!r}, not a number", "start the trainer with torchrun") from None
