"""Whether a file on disk is the object in S3 that it should be."""

from __future__ import annotations

import hashlib
from pathlib import Path

MIB = 2**20
CHUNK = 4 * MIB
# What the common tools cut uploads into.
PART_SIZES = (8 * MIB, 5 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 100 * MIB)


def matches_etag(path: Path, etag: str) -> bool | None:
    """Compare a file with an object's entity tag; None when the tag does not tell how it was made.

    A tag is the md5 of an object uploaded in one piece; of one uploaded in parts it is the md5 of the parts' md5s and
    their number, which can be computed again for the part sizes in use.
    """
    digest, _, count = etag.strip('"').partition("-")
    if not count:
        return md5_of(path) == digest if len(digest) == 32 else None
    if not count.isdigit() or int(count) == 0:
        return None
    size, parts = path.stat().st_size, int(count)
    even = -(-size // parts // MIB) * MIB
    fitting = [part for part in dict.fromkeys((*PART_SIZES, even)) if part and -(-size // part) == parts]
    return True if any(_md5_of_parts(path, part) == digest for part in fitting) else None


def md5_of(path: Path) -> str:
    """Return the md5 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _md5_of_parts(path: Path, part: int) -> str:
    whole = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        left = path.stat().st_size
        while left > 0:
            one = hashlib.md5(usedforsecurity=False)
            missing = min(part, left)
            left -= missing
            while missing > 0 and (piece := file.read(min(CHUNK, missing))):
                one.update(piece)
                missing -= len(piece)
            whole.update(one.digest())
    return whole.hexdigest()
