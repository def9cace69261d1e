"""How far work on a data set has come: a bar on a terminal, lines now and then in a pipe, JSON lines for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from orchestrator.core.units import format_size
from orchestrator.report.json import line
from orchestrator.report.text import clean

EVERY_SECONDS = 5.0
EVERY_SECONDS_AS_JSON = 0.5
IMAGES = "packing"  # the one stage that counts images; the others count bytes

Write = Callable[[str], None]


# What each stage does, in words; those that are left out say it themselves.
WORDS = {"fetching": "fetching the source", "reading": "reading for the digests", "joining": "joining the parts"}


class _Pace:
    """Where a stage stood when it was first seen, for the rate since."""

    def __init__(self, stage: str, done: int) -> None:
        self.stage, self._first, self._began = stage, done, time.monotonic()

    def text(self, done: int, total: int) -> str:
        """Return how far it is, and how fast once that can be told."""
        seconds = time.monotonic() - self._began
        rate = (done - self._first) / seconds if seconds > 1 else 0
        if self.stage == IMAGES:
            return f"{done:,} of {total:,} images" + (f", {rate:,.0f}/s" if rate else "")
        return f"{format_size(done)} of {format_size(total)}" + (f", {format_size(rate)}/s" if rate else "")

    def whole(self, total: int) -> str:
        """Return how much there is to do."""
        return f"{total:,} images in all" if self.stage == IMAGES else f"{format_size(total)} in all"


class Bar:
    """A bar for each stage, a context manager."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:<19}"), BarColumn(), TextColumn("{task.fields[text]}"))
        self._bars = Progress(*columns, TimeRemainingColumn(), console=console)
        self._shown: dict[str, tuple[TaskID, _Pace]] = {}

    def __enter__(self) -> Bar:
        self._bars.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.__exit__(kind, error, at)

    def at(self, stage: str, done: int, total: int) -> None:
        """Move the bar of `stage`."""
        if stage not in self._shown:
            self._shown[stage] = (
                self._bars.add_task(WORDS.get(stage, stage), total=total, text=""),
                _Pace(stage, done),
            )
        task, pace = self._shown[stage]
        self._bars.update(task, completed=done, total=total, text=pace.text(done, total))

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(clean(text))


class Lines:
    """A line when a stage begins to move, every few seconds and when it is through; as JSON with `as_json`."""

    def __init__(self, write: Write, *, as_json: bool) -> None:
        self._write, self._as_json = write, as_json
        self._every = EVERY_SECONDS_AS_JSON if as_json else EVERY_SECONDS
        self._pace = _Pace("", 0)
        self._said = 0.0
        self._through = False

    def at(self, stage: str, done: int, total: int) -> None:
        """Print a line when it is time for one."""
        now = time.monotonic()
        begins = stage != self._pace.stage
        ends = done >= total and (begins or not self._through)
        if begins:
            self._pace = _Pace(stage, done)
        if not (begins or ends or (now - self._said >= self._every and done < total)):
            return
        self._said, self._through = now, done >= total
        if self._as_json:
            self._write(line({"stage": stage, "images" if stage == IMAGES else "bytes": done, "of": total}))
        else:
            # What is there at the first look is a matter of chance, and says nothing.
            text = self._pace.text(done, total) if ends or not begins else self._pace.whole(total)
            self._write(f"{WORDS.get(stage, stage)}: {text}")

    def say(self, text: str) -> None:
        """Print a line."""
        self._write(line({"say": clean(text)}) if self._as_json else clean(text))
