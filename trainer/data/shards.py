"""Images to pack, read and shrunk by processes of their own, a few hundred at a time, and handed over in order.

They keep nothing on the disk, and end with the process that asked for them, even when that is killed. No torch here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data import picture
from trainer.data.damage import UndecodableError
from trainer.data.sources import Found
from trainer.errors import FAILED, TrainerError

SIZE = 256  # images in a shard: some 30 MB of ImageNet
AHEAD = 2  # shards for each process that are asked for before they are needed


class Task(NamedTuple):
    """A shard to be made: `images` of `split` and their `labels`; short sides of the copies, and their quality."""

    split: str
    images: list[Found]
    labels: list[int]
    sizes: tuple[int, ...]
    quality: int


class Made(NamedTuple):
    """A shard: all its images one after the other, as they were and in each size; `rows`, `corrupt` as in `Shard`."""

    task: Task
    bodies: list[bytes]
    rows: NDArray[np.int64]
    corrupt: list[tuple[str, str]]


def make(task: Task) -> Made:
    """Read and shrink the images of `task`. Raises TrainerError for one that cannot be read."""
    bodies: list[list[bytes]] = [[] for _ in range(1 + len(task.sizes))]
    rows, corrupt = [], []
    for position, (image, label) in enumerate(zip(task.images, task.labels, strict=True)):
        try:
            found = picture.copies(image.read(), task.sizes, task.quality)
        except UndecodableError as error:
            corrupt.append((f"{task.split}/{image.path}", str(error).splitlines()[0]))
            continue
        except OSError as error:
            raise TrainerError(
                f"cannot read {image.path} in {image.file}: {error.strerror}",
                "make it readable and start again: what is packed is kept",
            ) from error
        for body, encoded in zip(bodies, found.encoded, strict=True):
            body.append(encoded)
        sizes = ((*shape, len(encoded)) for encoded, shape in zip(found.encoded, found.shapes, strict=True))
        rows.append([position, label, *(number for size in sizes for number in size)])
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 2 + 3 * len(bodies))
    return Made(task, [b"".join(body) for body in bodies], table, corrupt)


def in_order(tasks: Iterable[Task], processes: int) -> Iterator[Made]:
    """Yield what `make` makes of each of `tasks`, in order. Raises TrainerError."""
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), initializer=_be_a_child)
    waiting: deque[Future[Made]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(make, task))
            if len(waiting) >= AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise TrainerError(
            "a process that shrinks images was killed",
            "if memory ran out, give fewer --processes; started again it goes on from there",
            exit_code=FAILED,
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _be_a_child() -> None:
    """End when the parent does, however that happens; leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
