"""Run by test_trainer_pack_resume.py: packings that are killed, each once more until one is whole.

`python killed.py SRC FOLDER` packs SRC as a whole into FOLDER/whole. Then, for every moment at which a packing makes
something sure on the disk, it packs into FOLDER/<moment>, kills that process at that moment with SIGKILL, spoils what
is not sure yet, and packs again; what comes of it is one JSON object a line. It has no torch, so that forking is cheap.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer import cli
from trainer.data import journal, pack, shards

SHARD = 9
SECONDS = 60.0  # until what a killed process left behind counts as there to stay


def main(source: str, folder: Path) -> None:
    """Print a line for each moment."""
    shards.SIZE = SHARD
    _wait(_fork(lambda: _pack(source, folder / "whole")))
    moment, died = 0, True
    while died:
        found = _killed_at(moment, source, folder / str(moment))
        found["alike"] = _everything(folder / str(moment)) == _everything(folder / "whole")
        died = bool(found["died"])
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        moment += 1


def _killed_at(moment: int, source: str, to: Path) -> dict[str, object]:
    """Return whether it died and left anything begun, whether nobody outlived it, and the next one's exit code."""
    read, write = os.pipe()  # open as long as the killed process or a child of it is there
    pid = _fork(lambda: _pack_until(source, to, moment))
    os.close(write)
    died = _wait(pid) == -signal.SIGKILL
    nobody = bool(select.select([read], [], [], SECONDS)[0])
    os.close(read)
    begun = (to / journal.FILE).exists()
    if begun:
        _spoil(to)
    return {"died": died, "begun": begun, "nobody": nobody, "code": _wait(_fork(lambda: _pack(source, to)))}


def _pack(source: str, to: Path) -> int:
    return cli.main(["pack", source, str(to), "--sizes", "24", "--processes", "2"])


def _pack_until(source: str, to: Path, moment: int) -> int:
    """Pack, and be killed when a file is to be made sure for the `moment`th time."""
    seen = 0

    def fsync(file: int) -> None:
        nonlocal seen
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        return _pack(source, to)


def _spoil(root: Path) -> None:
    """Leave what a write that was cut off leaves."""
    for path in (*root.rglob(pack.IMAGES), root / journal.FILE):
        with path.open("ab") as file:
            file.write(b'["train",9,[[1,')


def _everything(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _fork(work: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            with Path(os.devnull).open("w") as sys.stdout:
                code = work()
        finally:
            os._exit(code)
    return pid


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
