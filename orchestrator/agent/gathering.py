"""Bytes of many objects for a packing: images into one file, pieces one after the other through a digest."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from orchestrator.agent.fetch import CONNECTIONS, Corrupt, Say
from orchestrator.agent.staging import patiently
from orchestrator.agent.store import Store

RANGE = 16 * 2**20
AHEAD = 16  # ranges that come while one is digested


def gather(store: Store, prefix: str, images: Sequence[Sequence[Any]], into: Path) -> None:
    """Write images, each `[class, name, file, offset, bytes]`, one after the other into a file.

    Raises Corrupt where the source has become shorter since it was listed, OSError.
    """
    starts = accumulate((image[4] for image in images), initial=0)
    with into.open("wb") as file, ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="gather") as pool:

        def fetch(image: Sequence[Any], start: int) -> None:
            _, _, name, at, size = image
            body = _read(store, prefix + name, at, at + size)
            os.pwrite(file.fileno(), body, start)

        for done in [pool.submit(fetch, image, start) for image, start in zip(images, starts, strict=False)]:
            done.result()


def digest_of(store: Store, pieces: Sequence[tuple[str, int]], told: Callable[[int], None], say: Say) -> str:
    """Return the sha256 (hex) of objects (key, bytes) one after the other; `told` is told of bytes so far."""
    state, count = hashlib.sha256(), 0
    for body in read_ahead(store, pieces, say):
        state.update(body)
        count += len(body)
        told(count)
    return state.hexdigest()


def read_ahead(store: Store, pieces: Sequence[tuple[str, int]], say: Say) -> Iterator[bytes]:
    """Yield the bytes of objects (key, bytes) in order, each in blocks of `RANGE`, some of them fetched ahead."""
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="read") as pool:
        for key, size in pieces:
            for start in range(0, size, RANGE):
                read = partial(_read, store, key, start, min(size, start + RANGE))
                waiting.append(pool.submit(patiently, read, say))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(store: Store, key: str, start: int, stop: int) -> bytes:
    body = b"".join(store.read(key, start, stop, "")) if stop > start else b""
    if len(body) != stop - start:
        raise Corrupt(f"{key} gave {len(body)} bytes where it had {stop - start}", "the source was changed; start anew")
    return body
