"""Fetching objects into files, many at once, each checked; and saying how far it is."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from orchestrator.agent.digest import matches_etag, md5_of
from orchestrator.agent.store import Store
from orchestrator.core.units import format_size
from orchestrator.errors import OrchError

FILES_AT_ONCE = 8
# One request fetches this much as fast as several do, without the machinery that several need.
SMALL = 8 * 2**20
ATTEMPTS = 4
WRITE_EVERY = 0.5
SAY_EVERY = 5.0


class Corrupt(OrchError):
    """What came from S3 is not what should be there."""


@dataclass(frozen=True, slots=True)
class Item:
    """An object to fetch: `size` in bytes and `etag` as listed, `path` where it goes."""

    store: Store
    key: str
    size: int
    etag: str
    path: Path


class Meter:
    """Counts bytes; keeps `{"staged", "to_stage"}` in a file for the beacon and prints a line now and then."""

    def __init__(self, file: Path, total: int, say: Callable[[str], None]) -> None:
        self._file = file
        self._total = total
        self._say = say
        self._lock = threading.Lock()
        self._count = 0
        self._began = self._said = time.monotonic()
        self._written = 0.0

    def add(self, count: int) -> None:
        """Take `count` more bytes (fewer, when negative: a part is fetched again)."""
        with self._lock:
            self._count += count
            now = time.monotonic()
            if now - self._written >= WRITE_EVERY or self._count >= self._total:
                self._written = now
                self._write()
            if now - self._said >= SAY_EVERY:
                self._said = now
                rate = format_size(self._count / (now - self._began))
                self._say(f"staged {format_size(self._count)} of {format_size(self._total)}, {rate}/s")

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps({"staged": self._count, "to_stage": self._total}))
        fresh.replace(self._file)


def fetch_all(items: Iterable[Item], meter: Meter, say: Callable[[str], None]) -> None:
    """Fetch every item that is not on disk yet. Raises the first OrchError or OSError; the others are let finish."""
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="fetch") as pool:
        list(pool.map(lambda item: fetch(item, meter, say), items))


def fetch(item: Item, meter: Meter, say: Callable[[str], None]) -> None:
    """Make `item.path` the object, unless it is. Raises Corrupt when it cannot be had whole, OrchError, OSError."""
    if _is_there(item):
        meter.add(item.size)
        return
    item.path.parent.mkdir(parents=True, exist_ok=True)
    part = item.path.with_name(f".{item.path.name}.part")
    before: str | None = None
    for attempt in range(1, ATTEMPTS + 1):
        counted = _download(item, part, meter, last=attempt == ATTEMPTS, say=say)
        if counted is not None and part.stat().st_size == item.size:
            if matches_etag(part, item.etag) is not False:
                break
            # Two fetches that agree are the object: its entity tag is then no digest (as under SSE-KMS).
            now = md5_of(part)
            if now == before:
                break
            before = now
        meter.add(-(counted or 0))
    else:
        part.unlink(missing_ok=True)
        raise Corrupt(f"{item.key} did not arrive whole in {ATTEMPTS} attempts", "upload it again")
    part.replace(item.path)


def _download(item: Item, part: Path, meter: Meter, *, last: bool, say: Callable[[str], None]) -> int | None:
    """Download once and return the bytes that were counted, None when it failed; the last failure is raised."""
    counted = 0

    def count(size: int) -> None:
        nonlocal counted
        counted += size
        meter.add(size)

    try:
        if item.size <= SMALL:
            part.write_bytes(item.store.get(item.key))
            count(item.size)
        else:
            item.store.download_file(item.key, part, count)
    except OrchError as error:
        meter.add(-counted)
        if last:
            raise
        say(f"{item.key}: {error.message}; trying again")
        time.sleep(1)
        return None
    return counted


def _is_there(item: Item) -> bool:
    with contextlib.suppress(OSError):
        return item.path.stat().st_size == item.size and matches_etag(item.path, item.etag) is True
    return False
