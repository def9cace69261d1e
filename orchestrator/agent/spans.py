"""Which bytes of a file are there: half-open spans that are merged as they come. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator


class Spans:
    """Bytes [start, stop) that are there, in order, none touching another."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._spans)

    def add(self, start: int, stop: int) -> None:
        """Take bytes [start, stop) as there."""
        if start >= stop:
            return
        first = bisect_left(self._spans, start, key=lambda span: span[1])
        last = first
        while last < len(self._spans) and self._spans[last][0] <= stop:
            start, stop = min(start, self._spans[last][0]), max(stop, self._spans[last][1])
            last += 1
        self._spans[first:last] = [(start, stop)]

    def until(self, start: int) -> int:
        """Return where the bytes that are there from `start` on end; `start` itself when that one is not there."""
        return next((stop for begin, stop in self._spans if begin <= start < stop), start)

    def count(self) -> int:
        """Return how many bytes are there."""
        return sum(stop - start for start, stop in self._spans)

    def gaps(self, size: int, most: int) -> Iterator[tuple[int, int]]:
        """Yield what is missing of a file of `size` bytes, in order, in spans of `most` bytes."""
        at = 0
        for start, stop in [*self._spans, (size, size)]:
            for begin in range(at, min(start, size), most):
                yield begin, min(begin + most, start, size)
            at = max(at, stop)
