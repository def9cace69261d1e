"""What is seen of work that takes a while: on a terminal one line written anew, else a line now and then, or JSON."""

from __future__ import annotations

import json
import math
import time
from typing import Any, TextIO

LINES = 20  # said on the way where lines stay
_CLEAR = "\r\x1b[K"


class Progress:
    """Says how many of `total` images are packed, of which `done` were before this process began.

    With `as_json` a line of JSON says so for every shard, for a program that reads along.
    """

    def __init__(self, stream: TextIO, total: int, done: int, *, as_json: bool = False) -> None:
        self._stream, self._total, self._first = stream, total, done
        self._began = time.monotonic()
        self._as_json = as_json
        self._anew = stream.isatty() and not as_json
        self._said = done * LINES // total

    def at(self, done: int, corrupt: int) -> None:
        """Say that `done` images have been read, of which `corrupt` were left out."""
        if self._as_json:
            write_json(self._stream, {"images": done, "of": self._total, "corrupt": corrupt})
            return
        part = done * LINES // self._total
        if self._anew or part > self._said:
            self._said = part
            self._write(self._text(done, corrupt), "" if self._anew and done < self._total else "\n")

    def say(self, text: str) -> None:
        """Say a line that stays."""
        if self._as_json:
            write_json(self._stream, {"say": text})
        else:
            self._write(text, "\n")

    def _text(self, done: int, corrupt: int) -> str:
        rate = (done - self._first) / max(time.monotonic() - self._began, 1e-6)
        words = [f"{done:,} of {self._total:,} images", f"{rate:,.0f} images/s"]
        if done < self._total:
            minutes = (self._total - done) / max(rate, 1e-6) / 60
            words.append(f"{math.ceil(minutes):,} min left" if minutes > 1 else "less than a minute left")
        return " · ".join(words + [f"{corrupt:,} corrupt"] * bool(corrupt))

    def _write(self, text: str, end: str) -> None:
        self._stream.write((_CLEAR if self._anew else "") + text + end)
        self._stream.flush()


def write_json(stream: TextIO, value: dict[str, Any]) -> None:
    """Write `value` as a line of JSON."""
    stream.write(json.dumps(value) + "\n")
    stream.flush()
