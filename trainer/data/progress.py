"""What a person sees of work that takes a while: on a terminal one line written anew, else a line now and then."""

from __future__ import annotations

import math
import time
from typing import TextIO

LINES = 20  # said on the way where lines stay
_CLEAR = "\r\x1b[K"


class Progress:
    """Says how many of `total` images are packed, of which `done` were before this process began."""

    def __init__(self, stream: TextIO, total: int, done: int) -> None:
        self._stream, self._total, self._first = stream, total, done
        self._began = time.monotonic()
        self._anew = stream.isatty()
        self._said = done * LINES // total

    def at(self, done: int, corrupt: int) -> None:
        """Say that `done` images have been read, of which `corrupt` were left out."""
        part = done * LINES // self._total
        if self._anew or part > self._said:
            self._said = part
            self._write(self._text(done, corrupt), "" if self._anew and done < self._total else "\n")

    def say(self, text: str) -> None:
        """Say a line that stays."""
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
