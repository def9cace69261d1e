"""Fetching objects into files: many connections, large ranges, digested while they come, gone on with after a kill.

boto3's client speaks HTTP. Who fetches what, and where it is written, is decided here: its transfer manager writes by
one thread and forgets what it had (measured: docs/benchmarks.md).
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.agent.digest import hash_for, matches_etag, sha256_of
from orchestrator.agent.known import Known
from orchestrator.agent.meter import Meter
from orchestrator.agent.part import Part, Writer
from orchestrator.agent.store import Store
from orchestrator.core.units import first_of
from orchestrator.errors import NoPermission, NotFound, OrchError, PreconditionFailed

# One connection to S3 carries some 90 MB/s: a machine with a fast network needs many, and has many cores.
CONNECTIONS = min(64, max(8, 4 * (os.cpu_count() or 1)))
RANGE = 32 * 2**20
ATTEMPTS = 4
PAUSE = 1.0
NAMED = 5

Say = Callable[[str], None]


class Corrupt(OrchError):
    """What came from S3 is not what should be there."""


@dataclass(frozen=True, slots=True)
class Item:
    """An object to fetch: `size` in bytes and `etag` as listed, `path` where it goes.

    `sha256` (hex) is what the data set's manifest says of it, "" without one; `phase` when it is needed, 0 first.
    """

    store: Store
    key: str
    size: int
    etag: str
    path: Path
    sha256: str = ""
    phase: int = 0

    @property
    def identity(self) -> str:
        """What tells this version of the object from others."""
        return self.sha256 or self.etag


@dataclass(slots=True)
class _File:
    """One file being fetched: spans not begun yet, threads at work on it, digests that came before."""

    item: Item
    part: Part
    spans: deque[tuple[int, int]]
    active: int = 0
    before: list[str] = field(default_factory=list)


def missing(items: Iterable[Item], meter: Meter, known: Known) -> list[Item]:
    """Return what is not on disk yet, those of a lower phase first, and count the rest; `known` was right before."""

    def is_there(item: Item) -> bool:
        there = known.is_right(item.path, item.size, item.identity) or _is_right(item)
        if there:
            meter.found(item.size, item.phase)
            known.add(item.path, item.identity)
        return there

    found = sorted(items, key=lambda item: item.phase)
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="look") as pool:
        return [item for item, there in zip(found, pool.map(is_there, found), strict=True) if not there]


def fetch_all(items: Iterable[Item], meter: Meter, say: Say, known: Known, *, name_all: bool = False) -> None:
    """Fetch items that are not on disk, in this order, and make `known` what came.

    Raises the first OrchError or OSError; what has come by then is kept. After an object that is damaged no other is
    begun, and Corrupt names what is damaged of those that were under way, of each of which a range comes yet. With
    `name_all` it ends nothing: all else is fetched, and then Corrupt names all of it.
    """
    fetching = Fetching(items, meter, say, known, name_all=name_all)
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="fetch") as pool:
        for thread in [pool.submit(fetching.work) for _ in range(CONNECTIONS)]:
            thread.result()
    fetching.close()
    if fetching.failure is not None:
        raise fetching.failure
    if fetching.damaged:
        raise _damaged(sorted(fetching.damaged))


def _damaged(found: Sequence[tuple[str, str]]) -> Corrupt:
    """Return what to raise for objects, each with what is wrong with it."""
    hint = "upload it again, or build the data set again (`orch dataset build --force`)"
    if len(found) == 1:
        return Corrupt(f"{found[0][0]} is damaged: {found[0][1]}", hint)
    details = tuple(f"{key}: {said}" for key, said in found)
    names = first_of([key for key, _ in found], NAMED)
    return Corrupt(f"{len(found)} objects are damaged: {names}", hint.replace(" it", " them"), details=details)


class Fetching:
    """What threads that fetch share: which files wait, which are open, and what went wrong first."""

    def __init__(self, items: Iterable[Item], meter: Meter, say: Say, known: Known, *, name_all: bool) -> None:
        self._name_all = name_all
        self._meter, self._say, self._known = meter, say, known
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Item, list[str]]] = deque((item, []) for item in items)
        self._open: list[_File] = []
        self._opening = 0
        self.failure: Exception | None = None
        self.damaged: list[tuple[str, str]] = []

    def close(self) -> None:
        """Close the files that did not come whole; what is there of them stays."""
        for file in self._open:
            file.part.close()

    def work(self) -> None:
        """Fetch until nothing is left or something failed."""
        try:
            while (taken := self._take()) is not None:
                file, span = taken
                if span is not None:
                    self._fetch(file, *span)
                    file.part.catch_up()
                if self.failure is None:
                    self._leave(file)
        except Exception as error:
            with self._changed:
                self.failure = self.failure or error
                self._changed.notify_all()

    def _take(self) -> tuple[_File, tuple[int, int] | None] | None:
        """Return a file and a span of it that nobody fetches yet (None: nothing of it is missing), None at the end.

        A file each as long as there are enough, so that each is written and digested front to back. Once something is
        damaged only what did not come right the first time is begun again.
        """
        with self._changed:
            while self.failure is None:
                ending = bool(self.damaged) and not self._name_all
                if ending and not (self._waiting and self._waiting[0][1]):
                    return None
                if ending or (self._waiting and len(self._open) + self._opening < CONNECTIONS):
                    item, before = self._waiting.popleft()
                    self._opening += 1
                    break
                if spare := [file for file in self._open if file.spans]:
                    file = min(spare, key=lambda each: each.active)
                    file.active += 1
                    return file, file.spans.popleft()
                if not (self._waiting or self._open or self._opening):
                    return None
                self._changed.wait()
            else:
                return None
        return self._begin(item, before)

    def _begin(self, item: Item, before: list[str]) -> tuple[_File, tuple[int, int] | None]:
        made = hashlib.sha256() if item.sha256 else hash_for(item.etag, item.size)
        part = Part(item.path, item.size, item.identity, made)
        file = _File(item, part, deque(part.missing(RANGE)), active=1, before=before)
        self._meter.found(part.got, item.phase)
        span = file.spans.popleft() if file.spans else None
        with self._changed:
            self._opening -= 1
            self._open.append(file)
            self._changed.notify_all()
        return file, span

    def _leave(self, file: _File) -> None:
        """Give the file back; whoever is the last looks whether it is right."""
        with self._changed:
            file.active -= 1
            last = not file.active and not file.spans
        if not last:
            return
        again = None if self._finish(file) else (file.item, file.before)
        with self._changed:
            self._open.remove(file)
            if again is not None:
                self._waiting.appendleft(again)
            self._changed.notify_all()

    def _fetch(self, file: _File, start: int, stop: int) -> None:
        """Write bytes [start, stop) of the object, going on where a connection broke."""
        item, writer = file.item, file.part.writer(start)
        attempt = 1
        while writer.at < stop and self.failure is None:
            before = writer.at
            try:
                self._read(item, writer, stop)
            except (NoPermission, NotFound, PreconditionFailed):
                raise
            except OrchError as error:
                attempt = 1 if writer.at > before else attempt + 1
                if attempt > ATTEMPTS:
                    raise
                self._say(f"{item.key}: {error.message}; trying again")
                time.sleep(PAUSE)
            finally:
                writer.note()

    def _read(self, item: Item, writer: Writer, stop: int) -> None:
        for piece in item.store.read(item.key, writer.at, stop, item.etag):
            if self.failure is not None:
                return
            writer.write(piece)
            self._meter.add(len(piece), item.phase)
        if writer.at != stop:
            raise Corrupt(f"{item.key} gave {writer.at} bytes where it has {stop}", "see what lies at its source")

    def _finish(self, file: _File) -> bool:
        """Give a file that is right its name; drop one that is not. False when it is to be fetched again.

        Raises Corrupt for one that comes different every time.
        """
        item, digest = file.item, file.part.digest()
        if _matches(item, file.part.path, digest, file.before):
            file.part.keep()
            self._known.add(item.path, item.identity)
            return True
        file.part.drop()
        self._meter.add(-item.size, item.phase)
        said = f"its sha256 is {digest}, by the manifest it is {item.sha256}"
        if item.sha256 and digest in file.before:
            self.damaged.append((item.key, said))
            return True
        file.before.append(digest)
        if len(file.before) == ATTEMPTS:
            raise Corrupt(f"{item.key} did not arrive whole in {ATTEMPTS} attempts", "upload it again")
        self._say(f"{item.key} did not arrive whole; fetching it again")
        return False


def _matches(item: Item, path: Path, digest: str, before: list[str]) -> bool:
    if item.sha256:
        return digest == item.sha256
    # Two fetches that agree are the object: its entity tag is then no digest (as under SSE-KMS).
    return digest == item.etag.strip('"') or matches_etag(path, item.etag) is not False or digest in before


def _is_right(item: Item) -> bool:
    """Tell whether the file is there and has the digest that it should."""
    try:
        if item.path.stat().st_size != item.size:
            return False
        return sha256_of(item.path) == item.sha256 if item.sha256 else matches_etag(item.path, item.etag) is True
    except OSError:
        return False
