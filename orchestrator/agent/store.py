"""The few things the agent asks of S3, as a protocol; `aws.s3.Bucket` has them, and so has any folder in a test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol


class Stored(Protocol):
    """An object in a listing; `size` in bytes, `etag` as S3 gives it, in quotes."""

    @property
    def key(self) -> str:
        """Its key."""

    @property
    def size(self) -> int:
        """Its size in bytes."""

    @property
    def etag(self) -> str:
        """Its entity tag: the md5 (hex) of what was uploaded in one piece, `<md5 of md5s>-<parts>` otherwise."""


class Reader(Protocol):
    """One bucket, for reading. Every method raises OrchError when S3 refuses or cannot be reached."""

    def get(self, key: str) -> bytes:
        """Return an object. Raises NotFound."""

    def download_file(self, key: str, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Fetch an object of any size into a file, in parallel ranges; `on_bytes` is told of bytes as they come."""


class Store(Reader, Protocol):
    """One bucket. Every method raises OrchError when S3 refuses or cannot be reached."""

    def put(self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        """Write an object and return its etag; with `if_none_match` raises PreconditionFailed when it is there."""

    def read(self, key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        """Yield bytes [start, stop) of an object as they come. Raises PreconditionFailed when it is not `etag` now."""

    def list(self, prefix: str) -> Iterable[Stored]:
        """Yield the objects whose keys begin with `prefix`."""

    def upload_file(self, path: Path, key: str) -> None:
        """Write a file of any size."""


class Opener:
    """Opens a store when it is first wanted; from then on every thread has the same, until it is forgotten."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._store: Store | None = None

    def __call__(self) -> Store:
        """Return the store. Raises whatever making it raises; the next call tries again."""
        with self._lock:
            if self._store is None:
                self._store = self._make()
            return self._store

    def forget(self) -> None:
        """Make a new one next time: a client that was made when there were no credentials yet never has any."""
        with self._lock:
            self._store = None


def open_store(bucket: str, region: str) -> Store:
    """Return the bucket, reached with the node's role."""
    # Imported here: it is most of the agent's start-up, and the first look at the training must not wait for it.
    from orchestrator.aws.s3 import Bucket
    from orchestrator.aws.session import Session

    return Bucket(Session.from_environment(region), bucket)
