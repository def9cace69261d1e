"""Checkpoints on disk: written beside the training, there whole or not at all, the newest one found again.

A checkpoint is the folder `<step>` with `state.pt` (tensors, loaded without running code) and `meta.json`. It is
written as `.tmp-<step>`, flushed to the disk, and renamed. May not know what a recipe or a rank is.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

STATE = "state.pt"
META = "meta.json"
KEPT = 3  # one newest, one before it, one that may still be on its way to S3


class Loaded(NamedTuple):
    """A checkpoint read back."""

    step: int
    state: dict[str, Any]
    meta: dict[str, Any]


class Writer:
    """Writes one checkpoint at a time on a thread of its own; `on_written` is told the step, on that thread."""

    def __init__(self, folder: Path, on_written: Callable[[int], None]) -> None:
        self._folder = folder
        self._on_written = on_written
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def submit(self, step: int, state: dict[str, Any], meta: dict[str, Any]) -> None:
        """Begin to write; waits for the one before. The caller changes neither `state` nor `meta` any more."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(step, state, meta), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when everything submitted is on the disk. Raises what went wrong on the thread."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, step: int, state: dict[str, Any], meta: dict[str, Any]) -> None:
        try:
            write(self._folder, step, state, meta)
            self._on_written(step)
            prune(self._folder)
        except Exception as error:  # handed to the training thread by `wait`
            self._error = error


def write(folder: Path, step: int, state: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write the checkpoint of `step`, replacing one of the same step."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary, final = folder / f".tmp-{step}", folder / str(step)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    with (temporary / STATE).open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    with (temporary / META).open("w") as text:
        json.dump(meta, text, indent=1)
        text.flush()
        os.fsync(text.fileno())
    _flush(temporary)
    if final.exists():  # unreadable, or of a course that was given up: a folder cannot be renamed onto it
        old = folder / f".old-{step}"
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        shutil.rmtree(old)
    temporary.rename(final)
    _flush(folder)


def steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint in `folder`, newest first."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    numbers = (int(name) for name in names if name.isascii() and name.isdigit() and str(int(name)) == name)
    return sorted(numbers, reverse=True)


def newest(folder: Path, on_unreadable: Callable[[int, Exception], None]) -> Loaded | None:
    """Return the newest checkpoint that can be read, telling `on_unreadable` of those that cannot; None without any."""
    for step in steps(folder):
        try:
            state = torch.load(folder / str(step) / STATE, map_location="cpu", weights_only=True)
            return Loaded(step, state, json.loads((folder / str(step) / META).read_text()))
        except Exception as error:  # torch.load raises nearly anything for a torn file
            on_unreadable(step, error)
    return None


def prune(folder: Path) -> None:
    """Remove all but the newest KEPT checkpoints, and what broken-off writes left."""
    for step in steps(folder)[KEPT:]:
        shutil.rmtree(folder / str(step), ignore_errors=True)
    for entry in folder.iterdir():
        if entry.name.startswith((".tmp-", ".old-")):
            shutil.rmtree(entry, ignore_errors=True)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
