"""Keeping the values of secrets out of what leaves the node. Pure; on streams too, where a cut may halve a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MASK = b"***"
# A line of a secret of several lines (a key file) is one by itself when it is long enough not to be a word.
LINE = 8


class Redactor:
    """Replaces secrets by MASK in a stream of bytes."""

    def __init__(self, secrets: Iterable[str]) -> None:
        values = {value.encode() for value in secrets if value}
        values |= {line for value in values for line in value.splitlines() if len(line) >= LINE}
        # Longest first: where one secret begins another, the whole of the longer one goes.
        self._values = sorted(values, key=lambda value: (-len(value), value))
        self._pattern = re.compile(b"|".join(re.escape(value) for value in self._values)) if values else None
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown so far; what may be the beginning of a secret is held until more is known."""
        if self._pattern is None:
            return data
        data = self._held + data
        shown = []
        position = 0
        for match in self._pattern.finditer(data):
            if match.end() == len(data) and self._begins(match[0]):
                break
            shown += [data[position : match.start()], MASK]
            position = match.end()
        rest = data[position:]
        longest = min(len(rest), len(self._values[0]) - 1)
        keep = next((n for n in range(longest, 0, -1) if self._begins(rest[-n:])), 0)
        self._held = rest[len(rest) - keep :]
        shown.append(rest[: len(rest) - keep])
        return b"".join(shown)

    def flush(self) -> bytes:
        """Return what was held, at the end of the stream."""
        held, self._held = self._held, b""
        return held if self._pattern is None else self._pattern.sub(MASK, held)

    def clean(self, value: Any) -> Any:
        """Return a JSON value without secrets in its texts, which leaves it a JSON value."""
        if isinstance(value, str) and self._pattern is not None:
            data = value.encode(errors="surrogatepass")
            return self._pattern.sub(MASK, data).decode(errors="surrogatepass")
        if isinstance(value, list):
            return [self.clean(item) for item in value]
        if isinstance(value, dict):
            return {self.clean(name): self.clean(item) for name, item in value.items()}
        return value

    def _begins(self, data: bytes) -> bool:
        return any(len(value) > len(data) and value.startswith(data) for value in self._values)
