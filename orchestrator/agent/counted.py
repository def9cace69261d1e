"""A store whose requests are counted, for the bill of a run whose script uses S3 by itself (docs/node-contract.md)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from orchestrator.agent.store import Store, Stored

PAGE = 1000  # objects of a listing
PART = 16 * 2**20  # of an upload, which is also begun and completed


class Counts:
    """Requests by price and bytes stored, kept in `file`: a node's counts go on when its script starts again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        try:
            self._values: dict[str, int] = json.loads(file.read_text())
        except (OSError, ValueError):
            self._values = {"s3_gets": 0, "s3_puts": 0, "s3_bytes": 0}

    def add(self, *, gets: int = 0, puts: int = 0, stored: int = 0) -> None:
        """Count requests that read, those that write or list, and bytes that are stored now."""
        with self._lock:
            for name, count in (("s3_gets", gets), ("s3_puts", puts), ("s3_bytes", stored)):
                self._values[name] += count

    def keep(self) -> dict[str, int]:
        """Write the counts down, and return them as keys of a progress line. Raises OSError."""
        with self._lock:
            draft = self._file.with_suffix(".new")
            draft.write_text(json.dumps(self._values))
            draft.replace(self._file)
            return dict(self._values)


class Counted:
    """A `Store` that counts what is asked of another one."""

    def __init__(self, store: Store, counts: Counts) -> None:
        self._store, self._counts = store, counts

    def get(self, key: str) -> bytes:
        """Return an object. Raises NotFound."""
        self._counts.add(gets=1)
        return self._store.get(key)

    def read(self, key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        """Yield bytes [start, stop) of an object as they come."""
        self._counts.add(gets=1)
        return self._store.read(key, start, stop, etag)

    def download_file(self, key: str, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Fetch an object into a file; its size is not known before, so its parts are counted after."""
        self._store.download_file(key, path, on_bytes)
        self._counts.add(gets=1 + path.stat().st_size // PART)

    def put(self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        """Write an object."""
        self._counts.add(puts=1, stored=len(body))
        return self._store.put(key, body, if_none_match=if_none_match, if_match=if_match)

    def list(self, prefix: str) -> Iterable[Stored]:
        """Return the objects whose keys begin with `prefix`."""
        found = [*self._store.list(prefix)]
        self._counts.add(puts=1 + len(found) // PAGE)
        return found

    def upload_file(self, path: Path, key: str) -> None:
        """Write a file of any size."""
        size = path.stat().st_size
        self._counts.add(puts=3 + size // PART, stored=size)
        self._store.upload_file(path, key)
