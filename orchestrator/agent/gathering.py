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
from typing import Any, NamedTuple

from orchestrator.agent.fetch import CONNECTIONS, Corrupt, Say
from orchestrator.agent.staging import patiently
from orchestrator.agent.store import Store

RANGE = 16 * 2**20
GAP = 2**16  # bytes between two images that are fetched rather than asked for anew
AHEAD = 16  # ranges that come while one is digested


def gather(store: Store, prefix: str, images: Sequence[Sequence[Any]], into: Path) -> None:
    """Write images, each `[class, name, file, offset, bytes]`, one after the other into a file.

    Those that lie side by side, as in a tar, are fetched at once. Raises Corrupt where the source has become shorter
    since it was listed, OSError.
    """
    with into.open("wb") as file, ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="gather") as pool:

        def fetch(group: Sequence[_Image]) -> None:
            name, first, stop = group[0].file, group[0].at, max(image.at + image.size for image in group)
            body = _read(store, prefix + name, first, stop)
            for image in group:
                os.pwrite(file.fileno(), body[image.at - first : image.at - first + image.size], image.to)

        for done in [pool.submit(fetch, group) for group in _side_by_side(images)]:
            done.result()


class _Image(NamedTuple):
    """An image to fetch: `size` bytes at `at` of `file`, which go to `to`."""

    file: str
    at: int
    size: int
    to: int


def _side_by_side(images: Sequence[Sequence[Any]]) -> list[list[_Image]]:
    """Return the images in groups that are fetched at once: of one file, with no more than headers between them."""
    starts = accumulate((image[4] for image in images), initial=0)
    groups: list[list[_Image]] = []
    for image in sorted(_Image(file, at, size, to) for (_, _, file, at, size), to in zip(images, starts, strict=False)):
        last = groups[-1][-1] if groups else None
        near = last is not None and last.file == image.file and image.at - last.at - last.size <= GAP
        if near and image.at + image.size - groups[-1][0].at <= RANGE:
            groups[-1].append(image)
        else:
            groups.append([image])
    return groups


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
