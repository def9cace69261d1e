"""`metrics.jsonl`: the progress lines of all generations of a run, written by the agent of rank 0."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.agent.progress import parse_line
from orchestrator.agent.redact import Redactor
from orchestrator.agent.store import Store
from orchestrator.errors import NotFound

EVERY = 4.0
SECONDS_PER_MIB = 4.0


class Metrics:
    """Collects this generation's lines behind those of earlier ones; every line says its `generation`."""

    def __init__(self, key: str, generation: int, redactor: Redactor) -> None:
        self._key = key
        self._generation = generation
        self._redactor = redactor
        self._earlier: bytes | None = None
        self._lines = bytearray()
        self._sent = 0
        self._due = 0.0

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take new progress lines."""
        for line in lines:
            body = json.dumps(self._redactor.clean({**line, "generation": self._generation}))
            self._lines += body.encode() + b"\n"

    def sync(self, store: Store, now: float, *, final: bool) -> bool:
        """Send what is new (when it is due, or `final`) and tell whether all is in S3. Raises OrchError."""
        size = len(self._lines)
        if size > self._sent and (final or now >= self._due):
            if self._earlier is None:
                self._earlier = self._fetch_earlier(store)
            body = self._earlier + bytes(self._lines[:size])
            store.put(self._key, body)
            self._sent = size
            self._due = now + EVERY + SECONDS_PER_MIB * len(body) / 2**20
        return self._sent == len(self._lines)

    def _fetch_earlier(self, store: Store) -> bytes:
        """Return the lines of other generations; this one's are read again from the node's own file."""
        try:
            body = store.get(self._key)
        except NotFound:
            return b""
        kept = []
        for line in body.splitlines():
            value = parse_line(line)
            if value is not None and value.get("generation") != self._generation:
                kept.append(line + b"\n")
        return b"".join(kept)
