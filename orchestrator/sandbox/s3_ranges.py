"""Reading stored objects by seeking: a range costs what it is long, not what the object is. Moto read objects whole.

`StoredBytes` stands for the bytes of an object, or a part of them, that have not been read yet.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

from moto.s3.models import FakeKey

CHUNK = 2**20


class StoredBytes:
    """Part of an object as a sequence of bytes: it has a length, can be sliced without reading, and iterated in chunks.

    It stays readable when the object is overwritten or deleted meanwhile, as a download from S3 does.
    """

    def __init__(self, source: bytes | int, start: int, stop: int) -> None:
        """Take the bytes [start, stop) of `source`, which is bytes in memory or a file descriptor (then owned)."""
        self._source = source
        self._start = start
        self._stop = stop

    @classmethod
    def of(cls, key: FakeKey) -> StoredBytes:
        """Return the bytes of an object; nothing is read if it lies in a file. The S3 lock is held."""
        with key.lock:
            buffer: Any = key._value_buffer
            if not buffer._rolled:
                return cls(buffer._file.getvalue(), 0, key.size)
            buffer.flush()
            return cls(os.dup(buffer.fileno()), 0, key.size)

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, part: slice) -> StoredBytes:
        start, stop, _ = part.indices(len(self))
        source = self._source if isinstance(self._source, bytes) else os.dup(self._source)
        return StoredBytes(source, self._start + start, self._start + max(start, stop))

    def __iter__(self) -> Iterator[bytes]:
        for begin in range(self._start, self._stop, CHUNK):
            yield self._read(begin, min(begin + CHUNK, self._stop))

    @property
    def in_file(self) -> bool:
        """Whether the bytes lie in a file, from which the kernel can send them."""
        return not isinstance(self._source, bytes) and len(self) > 0

    def send_to(self, connection: socket.socket) -> None:
        """Send the bytes from the file in which they lie; they do not pass through this process. Raises OSError."""
        connection.sendfile(self, self._start, len(self))  # type: ignore[arg-type]  # it wants no more than `fileno`

    def fileno(self) -> int:
        """Return the descriptor of the file in which the bytes lie. Raises OSError when they lie in memory."""
        if isinstance(self._source, bytes):
            raise OSError("these bytes lie in no file")
        return self._source

    def __del__(self) -> None:
        if isinstance(self._source, int):
            os.close(self._source)

    def _read(self, start: int, stop: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[start:stop]
        return os.pread(self._source, stop - start, start)


class SeekableKey:
    """A stored object whose `value` is read only as far as it is sent; everything else is the object's own."""

    def __init__(self, key: FakeKey) -> None:
        self._key = key

    @property
    def value(self) -> StoredBytes:
        """The object's bytes, unread."""
        return StoredBytes.of(self._key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)
