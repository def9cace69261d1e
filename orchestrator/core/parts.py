"""A data set that nodes pack in parts: where in S3 the parts lie, and how they become whole files again. Pure.

Imports nothing outside the standard library, since it also runs on the nodes. What a part is, and what is noted of it,
is the trainer's affair (`python -m trainer parts`): here they are files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from orchestrator.core import dataset
from orchestrator.core.ids import Keys

# Of each part of an S3 object but its last, and of what is copied at once (5 GiB at most: user guide, upload limits).
LEAST = 5 * 2**20
MOST = 2**30


class PartKeys:
    """The S3 keys of a packing in parts, all of them below `runs/<run-id>/parts/`."""

    def __init__(self, run: str) -> None:
        self.prefix = f"{Keys(run).prefix}parts/"
        self.plan = f"{self.prefix}plan.json"  # after the images of every part
        self.done = f"{self.prefix}done/"
        self.packed = f"{self.prefix}packed/"
        self.digests = f"{self.prefix}digests/"
        self.small = f"{self.prefix}small/"
        self.joined = f"{self.prefix}joined.json"  # last of all: names, sizes and digests of the files to be

    def images(self, part: int) -> str:
        """Key of the list of the images of a part."""
        return f"{self.prefix}images/{part:05}.json"

    def journal(self, part: int) -> str:
        """Key of what is noted of a part that lies whole in S3."""
        return f"{self.done}{part:05}.jsonl"

    def packed_file(self, part: int, path: str) -> str:
        """Key of the piece of the file `path` that a part has."""
        return f"{self.packed}{part:05}/{path}"

    def digest(self, path: str) -> str:
        """Key of the sha256 (hex) of the whole file `path`."""
        return f"{self.digests}{path}"

    def small_file(self, path: str) -> str:
        """Key of a file that is not put together of pieces."""
        return f"{self.small}{path}"

    def pieces(self, objects: Iterable[tuple[str, int]]) -> dict[str, list[tuple[str, int]]]:
        """Return key and size of the pieces of each file in order, of all objects (keys, sizes) below `packed`."""
        found: dict[str, list[tuple[str, int]]] = {}
        for key, size in sorted(objects):
            path = key.removeprefix(self.packed).partition("/")[2]
            if size:
                found.setdefault(path, []).append((key, size))
        return found


class Span(NamedTuple):
    """Bytes [start, stop) of piece number `piece`."""

    piece: int
    start: int
    stop: int


def make_spans(sizes: Sequence[int]) -> list[list[Span]]:
    """Return the parts of an S3 object that is pieces of `sizes` bytes one after the other.

    A part of one span can be copied within S3. Pieces too small for a part of their own share one, with as little of a
    large neighbour as makes it large enough.
    """
    parts: list[list[Span]] = []
    pending: list[Span] = []
    have = 0
    for number, size in enumerate(sizes):
        at = 0
        if have:
            at = size if size < 2 * LEAST else LEAST - have
            pending.append(Span(number, 0, at))
            have += at
            if have >= LEAST:
                parts.append(pending)
                pending, have = [], 0
        while size - at >= LEAST:
            stop = min(size, at + MOST)
            parts.append([Span(number, at, stop)])
            at = stop
        if at < size:
            pending.append(Span(number, at, size))
            have += size - at
    return [*parts, pending] if pending else parts


def share(sizes: Mapping[str, int], rank: int, nodes: int) -> list[str]:
    """Return which of the files of `sizes` bytes are for the node of `rank`; the large ones are dealt out first."""
    return sorted(sizes, key=lambda path: (-sizes[path], path))[rank::nodes]


def is_wanted(path: str, *, originals: bool) -> bool:
    """Tell whether a file of a packed data set is part of one that is to have no more than the smaller copies."""
    return originals or path == dataset.ABOUT or path.startswith(dataset.COPIES)
