"""A file on its way from S3: written by many threads at once, digested as it comes, and gone on with after a kill.

It lies beside its final name as `.<name>.part`, with `.<name>.spans` that says which bytes of which object are there.
That may be wrong after a crash of the machine, so nothing is believed before the digest of the whole file is right.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from orchestrator.agent.digest import Hash
from orchestrator.agent.spans import Spans

# Written bytes are noted in this grain, so a killed staging fetches no more than this again for each connection.
NOTED = 4 * 2**20
# Smaller files are fetched again as a whole.
KEPT_FROM = 8 * 2**20
CHUNK = 2**18


def part_of(path: Path) -> Path:
    """Return where a file lies while it is not whole."""
    return path.with_name(f".{path.name}.part")


class Part:
    """An object of `size` bytes on its way to `path`; `identity` tells its version, `made` makes the digest wanted.

    `got` bytes of it were there when it was opened. Raises OSError.
    """

    def __init__(self, path: Path, size: int, identity: str, made: Hash) -> None:
        self.path = part_of(path)
        self._notes_path = path.with_name(f".{path.name}.spans")
        self._final, self._size, self._heading = path, size, f"{size} {identity}"
        self._lock = threading.Lock()
        self._spans = Spans()
        self._digest = _Digest(made)
        self._notes: IO[str] | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        if size >= KEPT_FROM:
            self._take_up()
        self.got = self._spans.count()
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | (0 if self.got else os.O_TRUNC), 0o644)

    def _take_up(self) -> None:
        """Read the notes of an earlier staging, if they are of this version of the object, and begin or go on."""
        if self.path.exists():
            with contextlib.suppress(OSError, ValueError):
                heading, *lines = self._notes_path.read_text().splitlines()
                for line in lines if heading == self._heading else ():
                    start, stop = map(int, line.split())
                    self._spans.add(start, min(stop, self._size))
        self._notes = self._notes_path.open("w")
        with contextlib.suppress(OSError):
            self._notes.write(f"{self._heading}\n")
            for start, stop in self._spans:
                self._notes.write(f"{start} {stop}\n")
            self._notes.flush()

    def missing(self, most: int) -> list[tuple[int, int]]:
        """Return the spans of at most `most` bytes that are not there."""
        with self._lock:
            return list(self._spans.gaps(self._size, most))

    def writer(self, start: int) -> Writer:
        """Return what writes one span, from `start` on."""
        return Writer(self, start)

    def write(self, start: int, piece: bytes) -> None:
        """Write `piece` where it belongs. Raises OSError."""
        view = memoryview(piece)
        at = start
        while view:
            count = os.pwrite(self._fd, view, at)
            at, view = at + count, view[count:]
        self._digest.offer(start, piece)

    def note(self, start: int, stop: int) -> None:
        """Note that bytes [start, stop) are written."""
        with self._lock:
            self._spans.add(start, stop)
            if self._notes is not None:
                self._notes.write(f"{start} {stop}\n")
                self._notes.flush()

    def catch_up(self) -> None:
        """Digest what is there in order and has not been digested while it was written."""
        self._digest.catch_up(self._fd, self._until)

    def _until(self, start: int) -> int:
        with self._lock:
            return self._spans.until(start)

    def digest(self) -> str:
        """Return the digest (hex) of the whole file, which is there. Raises OSError."""
        return self._digest.finish(self._fd, self._size)

    def keep(self) -> None:
        """Give the file its final name."""
        self.close()
        self.path.replace(self._final)
        self._notes_path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove what is there."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._notes_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; what is there stays for the next staging."""
        with self._lock:
            if self._notes is not None:
                self._notes.close()
                self._notes = None
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


class Writer:
    """Writes one span of a part, front to back."""

    def __init__(self, part: Part, start: int) -> None:
        self._part, self.at, self._noted = part, start, start

    def write(self, piece: bytes) -> None:
        """Write the next bytes. Raises OSError."""
        self._part.write(self.at, piece)
        self.at += len(piece)
        if self.at - self._noted >= NOTED:
            self.note()

    def note(self) -> None:
        """Note what was written."""
        if self.at > self._noted:
            self._part.note(self._noted, self.at)
            self._noted = self.at


class _Digest:
    """The digest of a file that is written in several places at once.

    A piece that comes where the digest stands is taken as it passes, still in the processor's cache; all others are
    read from the disk when their turn comes. One thread at a time goes on with it, the others write.
    """

    def __init__(self, made: Hash) -> None:
        self._hash = made
        self._lock = threading.Lock()
        self._busy = False
        self._at = 0

    def offer(self, start: int, piece: bytes) -> None:
        if self._take(start):
            self._hash.update(piece)
            self._let_go(start + len(piece))

    def catch_up(self, fd: int, until: Callable[[int], int]) -> None:
        at = self._at
        while (stop := until(at)) > at and self._take(at):
            self._read(fd, at, stop)
            self._let_go(stop)
            at = stop

    def finish(self, fd: int, size: int) -> str:
        self._read(fd, self._at, size)
        return self._hash.hexdigest()

    def _take(self, start: int) -> bool:
        with self._lock:
            if self._busy or self._at != start:
                return False
            self._busy = True
            return True

    def _let_go(self, at: int) -> None:
        with self._lock:
            self._at, self._busy = at, False

    def _read(self, fd: int, start: int, stop: int) -> None:
        buffer = memoryview(bytearray(CHUNK))
        while start < stop:
            count = os.preadv(fd, [buffer[: stop - start]], start)
            if not count:
                raise OSError(f"a file that was written ends at {start} bytes, not {stop}")
            self._hash.update(buffer[:count])
            start += count
