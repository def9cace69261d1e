"""Putting the files of ORCH_LOG_DIR into S3 as they grow, without secrets, in constant memory.

`run.log` goes in segments, of which only the last one is ever sent again; other files go whole when they changed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.agent.redact import Redactor
from orchestrator.agent.store import Store

SEGMENT = 5 * 2**20
CHUNK = 2**20
# A segment that grows is sent every few seconds, a full one every quarter of a minute: upload stays under 0.5 MB/s.
EVERY = 4.0
SECONDS_PER_MIB = 2.0
FILES_EVERY = 15.0
FILE_BYTES_PER_SECOND = 2 * 2**20


class SegmentedLog:
    """One growing file. `key` names the object of a segment; the objects in order make up the redacted file."""

    def __init__(self, path: Path, key: Callable[[int], str], redactor: Redactor) -> None:
        self._path = path
        self._key = key
        self._redactor = redactor
        self._offset = 0
        self._segment = bytearray()
        self._index = 0
        self._sent = 0
        self._due = 0.0

    def sync(self, store: Store, now: float, *, final: bool) -> bool:
        """Send what is new (when it is due, or `final`) and tell whether everything read so far is in S3.

        Raises OrchError; nothing is lost by it, the next call sends again.
        """
        # Full segments go before more is read: while S3 is away, memory does not grow.
        self._close_full_segments(store)
        while self._read():
            self._close_full_segments(store)
        if final:
            self._segment += self._redactor.flush()
        self._close_full_segments(store)
        if len(self._segment) > self._sent and (final or now >= self._due):
            store.put(self._key(self._index), bytes(self._segment))
            self._sent = len(self._segment)
            self._due = now + EVERY + SECONDS_PER_MIB * self._sent / 2**20
        return len(self._segment) == self._sent

    def _read(self) -> bool:
        """Read one piece and tell whether there may be more."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                piece = file.read(CHUNK)
        except FileNotFoundError:
            return False
        self._offset += len(piece)
        self._segment += self._redactor.feed(piece)
        return len(piece) == CHUNK

    def _close_full_segments(self, store: Store) -> None:
        """Send segments of at most SEGMENT bytes, cut at a line's end where there is one, for the last time."""
        while len(self._segment) >= SEGMENT:
            end = self._segment.rfind(b"\n", 0, SEGMENT) + 1 or SEGMENT
            store.put(self._key(self._index), bytes(self._segment[:end]))
            del self._segment[:end]
            self._index += 1
            self._sent = 0


@dataclass(slots=True)
class _Sent:
    state: tuple[int, int]
    due: float


class LogFiles:
    """Every other file in the folder; `key` names the object of a path relative to it."""

    def __init__(self, folder: Path, skip: Path, key: Callable[[str], str], secrets: tuple[str, ...]) -> None:
        self._folder = folder
        self._skip = skip
        self._key = key
        self._secrets = secrets
        self._sent: dict[Path, _Sent] = {}
        self._due = 0.0

    def sync(self, store: Store, now: float, *, final: bool) -> bool:
        """Send files that changed (when they are due, or `final`) and tell whether all are in S3. Raises OrchError."""
        if not final and now < self._due:
            return False
        self._due = now + FILES_EVERY
        complete = True
        for path in sorted(self._folder.rglob("*")):
            complete &= path == self._skip or self._sync_one(store, path, now, final=final)
        return complete

    def _sync_one(self, store: Store, path: Path, now: float, *, final: bool) -> bool:
        try:
            info = path.lstat()
        except FileNotFoundError:
            return True
        if not stat.S_ISREG(info.st_mode):
            return True
        state = (info.st_size, info.st_mtime_ns)
        sent = self._sent.get(path)
        if sent is not None and (sent.state == state or (now < sent.due and not final)):
            return sent.state == state
        self._send(store, path)
        self._sent[path] = _Sent(state, now + info.st_size / FILE_BYTES_PER_SECOND)
        return True

    def _send(self, store: Store, path: Path) -> None:
        key = self._key(path.relative_to(self._folder).as_posix())
        if not self._secrets:
            store.upload_file(path, key)
            return
        redactor = Redactor(self._secrets)
        with tempfile.NamedTemporaryFile(prefix="orch-log-") as clean, path.open("rb") as file:
            while piece := file.read(CHUNK):
                clean.write(redactor.feed(piece))
            clean.write(redactor.flush())
            clean.flush()
            store.upload_file(Path(clean.name), key)
