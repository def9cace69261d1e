"""Bytes of many objects for a packing: images into one file, tars onto the disk, and pieces through a digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from orchestrator.agent.config import DataSource, NodeConfig
from orchestrator.agent.fetch import CONNECTIONS, Corrupt, Item, Say, fetch_all, missing
from orchestrator.agent.known import Known
from orchestrator.agent.meter import Meter
from orchestrator.agent.staging import check_room, patiently
from orchestrator.agent.store import Store
from orchestrator.errors import BadInput, NotFound

RANGE = 16 * 2**20
AHEAD = 16  # ranges that come while one is digested
TAR = ".tar"
PACKED = "dataset.json"


def fetch_tars(  # noqa: PLR0917 - what is fetched, by whom and where to
    store: Store, source: DataSource, config: NodeConfig, root: Path, listing: Path, say: Say
) -> list[Path]:
    """Have the tars of a source in the folder `root`, since only their bytes say what they hold; return them.

    All its other files are named in `listing`, `[path, bytes]` a line. Raises NotFound where there is nothing, BadInput
    for a source that is packed already, Corrupt, OSError.
    """
    found = {item.key.removeprefix(source.prefix): item for item in store.list(source.prefix)}
    if not found:
        raise NotFound(f"nothing at s3://{source.bucket}/{source.prefix}", "name a prefix with images below it")
    if PACKED in found:
        raise BadInput(f"s3://{source.bucket}/{source.prefix} is packed already", "build it without --nodes")
    tars = [
        Item(store, item.key, item.size, item.etag, root / name)
        for name, item in found.items()
        if name.endswith(TAR) and "/" not in name
    ]
    with listing.open("w") as lines:
        for name, item in found.items():
            lines.write(json.dumps([name, item.size]) + "\n")
    meter = Meter(config.staging_file, {0: sum(item.size for item in tars)}, say)
    lacking = missing(tars, meter, Known(None))
    check_room(lacking, root)
    fetch_all(lacking, meter, say, Known(None))
    return [item.path for item in tars]


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
    for body in _ahead(store, pieces, say):
        state.update(body)
        count += len(body)
        told(count)
    return state.hexdigest()


def _ahead(store: Store, pieces: Sequence[tuple[str, int]], say: Say) -> Iterator[bytes]:
    """Yield the bytes of objects in order, some of them fetched ahead."""
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
