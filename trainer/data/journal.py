"""How far a packing is: a file beside the images that says what is asked for, then what lies whole in them.

A line is written once the images it speaks of are on the disk, so whatever comes after the last whole line is not
packed yet, in the images as in the journal. No torch here.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import BUSY, TrainerError

FILE = "packing.jsonl"

Plan = Mapping[str, Any]  # what a packing is of, as it reads back from JSON


@dataclass(frozen=True, slots=True)
class Shard:
    """The next `count` images of `split`: `rows` of those packed, and names and faults of the `corrupt` left out.

    A row is position in the shard and label, then width, height and bytes of the image as it was and of each copy.
    """

    split: str
    count: int
    rows: NDArray[np.int64]
    corrupt: list[tuple[str, str]]


class Journal:
    """The journal in `folder`, kept from other processes until it is closed; `shards` is what it said when opened.

    Raises TrainerError when another process has it, or when it is of another plan than `plan`.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._file: IO[bytes] = (folder / FILE).open("a+b")
        try:
            _lock(self._file, folder)
            self.shards = self._read(folder, plan)
        except BaseException:
            self.close()
            raise

    def add(self, shard: Shard) -> None:
        """Note that `shard` lies whole on the disk."""
        self._write([shard.split, shard.count, shard.rows.tolist(), shard.corrupt])

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def _read(self, folder: Path, plan: Plan) -> list[Shard]:
        self._file.seek(0)
        lines = list(takewhile(lambda line: line.endswith(b"\n"), self._file))
        self._file.truncate(sum(map(len, lines)))
        if not lines:
            self._write(plan)
            return []
        refuse_another(folder, json.loads(lines[0]), plan)
        return _shards(lines[1:])

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_shards(file: Path) -> list[Shard]:
    """Return the shards that a whole journal speaks of. Raises OSError."""
    return _shards(file.read_bytes().splitlines()[1:])


def _shards(lines: Iterable[bytes]) -> list[Shard]:
    return [
        Shard(split, count, _table(rows), [(name, fault) for name, fault in corrupt])
        for split, count, rows, corrupt in map(json.loads, lines)
    ]


def _table(rows: list[list[int]]) -> NDArray[np.int64]:
    """Return the rows of a shard, of which there are none where all its images are corrupt."""
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(rows[0]) if rows else 1)


def refuse_another(folder: Path, theirs: Plan, ours: Plan) -> None:
    """Raise TrainerError, with all that differs, when what is in `folder` was packed by another plan than `ours`."""
    differ = [key for key in dict.fromkeys((*ours, *theirs)) if theirs.get(key) != ours.get(key)]
    if differ:
        wrong = "; ".join(f"{key} {theirs.get(key)}, not {ours.get(key)}" for key in differ)
        raise TrainerError(f"{folder} is of another packing: {wrong}", "name another folder, or remove this one")


def _lock(file: IO[bytes], folder: Path) -> None:
    """Keep others out as long as this process lives: children share a flock, and would hold it a moment longer."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise TrainerError(
            f"another process is packing into {folder}", "wait for it, or end it", exit_code=BUSY
        ) from error
