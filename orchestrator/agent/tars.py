"""Tars in S3, seen as far as a listing needs: a file as long as the tar, with its headers in it and holes for the rest.

Who then lists that file learns what the tar holds, and where in it. All bytes pass by once, since every header says
where the next one is; what is kept takes a page or two a header, of ImageNet some 11 of 145 GB.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from orchestrator.agent.fetch import Say
from orchestrator.agent.gathering import RANGE, read_ahead
from orchestrator.agent.store import Store
from orchestrator.core.units import format_size

TAR = ".tar"
SAY_EVERY = 2**33


class _Passing:
    """The bytes of an object, which pass by in blocks; what is read of them is written down at the same place."""

    def __init__(self, blocks: Iterator[bytes], size: int, into: IO[bytes], say: Say) -> None:
        self._blocks, self._into, self._say = blocks, into, say
        self.size = size
        self._kept: dict[int, bytes] = {}
        self._count = 0

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop), of which none may have passed by more than a block ago."""
        body = b""
        while start < min(stop, self.size):
            number, offset = divmod(start, RANGE)
            piece = self._block(number)[offset : offset + stop - start]
            os.pwrite(self._into.fileno(), piece, start)
            body += piece
            start += len(piece)
        return body

    def _block(self, number: int) -> bytes:
        while number >= self._count:
            self._kept[self._count] = next(self._blocks)
            self._kept.pop(self._count - 2, None)
            self._count += 1
            if self._count * RANGE % SAY_EVERY == 0:
                self._say(f"listed {format_size(self._count * RANGE)} of {format_size(self.size)}")
        return self._kept[number]


class _View(io.RawIOBase):
    """Bytes [start, stop) of a `_Passing`, as a file for tarfile to walk through: not buffered, so it reads headers."""

    def __init__(self, passing: _Passing, start: int, stop: int) -> None:
        super().__init__()
        self._passing, self._start, self._stop = passing, start, stop
        self._at = start

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place, counted from the beginning."""
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("only from the beginning")
        self._at = self._start + offset
        return offset

    def tell(self) -> int:
        """Return the place."""
        return self._at - self._start

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        stop = self._stop if size < 0 else min(self._stop, self._at + size)
        body = self._passing.read(self._at, stop)
        self._at += len(body)
        return body


def outline(store: Store, key: str, size: int, into: Path, say: Say) -> None:
    """Write the file `into`: as long as the tar `key` of `size` bytes, with all its headers and those of tars in it.

    What is no tar ends early, which whoever lists it will find as well. Raises OrchError, OSError.
    """
    with into.open("w+b") as file:
        file.truncate(size)
        passing = _Passing(read_ahead(store, [(key, size)], say), size, file, say)
        _walk(passing, 0, size, inner=True)


def _walk(passing: _Passing, start: int, stop: int, *, inner: bool) -> None:
    view = cast(IO[bytes], _View(passing, start, stop))
    with suppress(tarfile.TarError, EOFError), tarfile.open(fileobj=view, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]
            if inner and member.isfile() and member.name.endswith(TAR):
                at = start + member.offset_data
                _walk(passing, at, at + member.size, inner=False)
