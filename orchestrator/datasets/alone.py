"""One build at a time works in a work folder: another one of the same order waits until it has ended.

The lock goes with the process that holds it, however that ends. It lies beside the folder, which goes with its build.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from orchestrator.datasets.order import Order
from orchestrator.datasets.progress import Progress

NOTE = "origin.txt"  # of what the rest of a work folder was made: alone it says nothing


@contextmanager
def alone(order: Order, progress: Progress) -> Iterator[None]:
    """Hold the work folder of an order, once whoever holds it has ended. Raises OSError.

    A folder in which nothing was done is removed, as of a source that was refused.
    """
    order.home.mkdir(parents=True, exist_ok=True)
    path = order.work.with_name(f".{order.work.name}.lock")
    with _locked(path, order, progress):
        try:
            yield
        finally:
            if order.work.is_dir() and {item.name for item in order.work.iterdir()} <= {NOTE}:
                shutil.rmtree(order.work)
            path.unlink(missing_ok=True)


def _locked(path: Path, order: Order, progress: Progress) -> IO[bytes]:
    """Return the lock file, locked until it is closed."""
    while True:
        file = path.open("ab")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.say(f"another `orch dataset build` is at {order.name} here; waiting for its end")
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had it has removed it, and somebody else may have made another one.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()
