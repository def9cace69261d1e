"""Looking at the training on this node: the files that `run.sh` keeps, and whether its process is there. Reads only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.agent.config import NodeConfig
from orchestrator.agent.times import read_marks
from orchestrator.core.beacon import Mark


@dataclass(frozen=True, slots=True)
class Local:
    """What was seen. Times are Unix seconds of this machine.

    `word` is the stage that `run.sh` wrote last ("" before the first), `alive` whether its process is there (None while
    it has written no process id), `exit` its code and the stage it ended in, `exit_time` when it wrote that, `started`
    when `run` began. `epoch` is the highest scheduler epoch, `contact` when a scheduler last sent a command, `asked`
    whether the training was asked to save and stop, `times` when each stage began. `deadline` is when the machine's own
    timer ends it, `armed` when that was set (None where nobody said).
    """

    word: str = ""
    alive: bool | None = None
    exit: tuple[int, str] | None = None
    exit_time: float | None = None
    started: float | None = None
    epoch: int = 0
    contact: float = 0.0
    asked: bool = False
    deadline: float | None = None
    armed: float = 0.0
    times: tuple[Mark, ...] = ()


def observe(config: NodeConfig) -> Local:
    """Return what there is to see now."""
    home, paths = config.home, config.paths
    # The process first, the exit file after it: `run.sh` writes the file before it goes, so a process that is gone
    # without one really went without one.
    pid = _number(_read(home / paths.pid_file))
    alive = None if pid is None else _is_runner(int(pid), config.folder)
    exit_file = home / paths.exit_file
    code, _, stage = _read(exit_file).partition(" ")
    number = _number(code)
    return Local(
        word=_read(home / paths.stage_file),
        alive=alive,
        exit=None if number is None else (int(number), stage),
        exit_time=None if number is None else _modified(exit_file),
        started=_number(_read(home / paths.started_file)),
        epoch=int(_number(_read(home / paths.epoch)) or 0),
        contact=_modified(home / paths.epoch),
        asked=(home / paths.stop).exists(),
        deadline=_number(_read(home / paths.deadline)),
        armed=_modified(home / paths.deadline),
        times=read_marks(config.times_file),
    )


def last_written(config: NodeConfig) -> float:
    """Return when anything was last written to the training's logs, progress or checkpoints, 0.0 for never."""
    progress, folders = config.home / config.paths.progress, (config.log_folder, config.checkpoint_folder)
    # Not by `rglob`, which minds when the training removes an old checkpoint meanwhile.
    files = (Path(at, name) for folder in folders for at, _, names in os.walk(folder) for name in names)
    return max(map(_modified, (progress, config.home / config.paths.started_file, *files)))


def _is_runner(pid: int, folder: Path) -> bool:
    """Tell whether process `pid` is the generation's `run.sh`: numbers are used again, command lines differ."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return str(folder / "run.sh").encode() in words


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
