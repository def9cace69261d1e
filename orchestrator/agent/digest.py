"""Whether a file on disk is the object in S3 that it should be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

MIB = 2**20
CHUNK = 4 * MIB
# What the common tools cut uploads into.
PART_SIZES = (8 * MIB, 5 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 100 * MIB)


class Hash(Protocol):
    """What is used here of a hash of hashlib."""

    def update(self, piece: Any, /) -> None:
        """Take the next bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes taken."""


class TagHash:
    """The entity tag, without quotes, of an object that was uploaded in parts of `part` bytes (0: in one piece).

    That is the md5 of it all, or the md5 of the parts' md5s and their number.
    """

    def __init__(self, part: int) -> None:
        self._part = self._left = part
        self._md5 = _md5()
        self._parts: list[bytes] = []

    def update(self, piece: Any, /) -> None:
        """Take the next bytes."""
        view = memoryview(piece)
        while self._part and len(view) >= self._left:
            self._md5.update(view[: self._left])
            view = view[self._left :]
            self._end_part()
        self._md5.update(view)
        self._left -= len(view)

    def hexdigest(self) -> str:
        """Return the tag of all bytes taken."""
        if not self._part:
            return str(self._md5.hexdigest())
        if self._left < self._part:
            self._end_part()
        return f"{_md5(b''.join(self._parts)).hexdigest()}-{len(self._parts)}"

    def _end_part(self) -> None:
        self._parts.append(self._md5.digest())
        self._md5, self._left = _md5(), self._part


def hash_for(etag: str, size: int) -> Hash:
    """Return what makes the entity tag of an object of `size` bytes in the way that `etag` was probably made."""
    return TagHash(next(iter(_parts_of(etag, size)), 0))


def matches_etag(path: Path, etag: str) -> bool | None:
    """Compare a file with an object's entity tag; None when the tag does not tell how it was made."""
    tag = etag.strip('"')
    if "-" not in tag:
        return md5_of(path) == tag if len(tag) == 32 else None
    return True if any(_tag_of(path, part) == tag for part in _parts_of(etag, path.stat().st_size)) else None


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """Return the md5 (hex) of a file."""
    return _tag_of(path, 0)


def _parts_of(etag: str, size: int) -> list[int]:
    """Return the part sizes that cut `size` bytes into as many parts as `etag` names; none when it names none."""
    count = etag.strip('"').partition("-")[2]
    if not count.isdigit() or int(count) == 0:
        return []
    even = -(-size // int(count) // MIB) * MIB
    return [part for part in dict.fromkeys((*PART_SIZES, even)) if part and -(-size // part) == int(count)]


def _tag_of(path: Path, part: int) -> str:
    made = TagHash(part)
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            made.update(piece)
    return made.hexdigest()


def _md5(body: bytes = b"") -> Any:
    return hashlib.md5(body, usedforsecurity=False)
