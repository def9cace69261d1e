"""Watching a run until it ends: a live view on a terminal, lines in a pipe, JSON lines with `--json`.

Only reads. Ctrl-C leaves the view and nothing else: the run belongs to its scheduler, not to this process.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import click

from orchestrator.cli.context import Place
from orchestrator.errors import Exit, OrchError, Unreachable

if TYPE_CHECKING:
    from orchestrator.run.view import RunView

POLL_SECONDS = 1.0
# The last phases take a moment each, and whoever watches waits for their end.
LAST_POLL_SECONDS = 0.3
LAST_PHASES = frozenset({"saving", "terminating"})
DOLLARS_INTERVAL = timedelta(seconds=30)
# Reading may fail for this long before watching gives up; the run itself does not notice.
PATIENCE_SECONDS = 120.0
# A scheduler that this command has just started takes the run within so long, on a busy machine too.
STARTING_SECONDS = 45.0


class Screen(Protocol):
    """Where a run is shown."""

    def update(self, view: RunView, note: str = "") -> None:
        """Show the run as it is now; `note` is about the watching itself."""


class PlainLines:
    """New lines as they come, for pipes."""

    def __init__(self) -> None:
        from orchestrator.report.lines import Narrator

        self._narrator = Narrator()

    def update(self, view: RunView, note: str = "") -> None:
        """Print what is new."""
        for line in self._narrator.tell(view):
            click.echo(line)


class JsonLines:
    """The row of `orch status --json` as one line, whenever something happened; dollars alone only now and then."""

    def __init__(self) -> None:
        self._last: dict[str, object] = {}
        self._time: datetime | None = None

    def update(self, view: RunView, note: str = "") -> None:
        """Print the row when there is something new in it."""
        from orchestrator.report.json import line

        row = view.summary()
        facts = {key: value for key, value in row.items() if key not in {"spot_usd", "on_demand_usd"}}
        now = view.facts.server_time
        if facts != self._last or self._time is None or now - self._time >= DOLLARS_INTERVAL:
            self._last, self._time = facts, now
            click.echo(line(row))


class Silent:
    """Nothing at all: for callers that want the report at the end and nothing else on stdout."""

    def update(self, view: RunView, note: str = "") -> None:
        """Show nothing."""


def follow(place: Place, run_id: str, *, screen: Screen | None = None, starting: bool = False) -> RunView:
    """Show a run until it has ended, and return it as it then is. Ctrl-C ends the command with 130 and harms nothing.

    With `starting` its scheduler was started just now, and is waited for. Raises NotFound, or Unreachable when the run
    can no longer be read or nobody schedules it.
    """
    from orchestrator.run.read import Reader

    reader = Reader(place.session, place.bucket, run_id, history=True)
    try:
        with _terminal() if screen is None else nullcontext(screen) as shown:
            return _until_ended(reader.read, shown, run_id, STARTING_SECONDS if starting else 0.0)
    except KeyboardInterrupt:
        click.echo(
            f"\nleft the view; the run goes on: `orch watch {run_id}` comes back, `orch stop {run_id}` ends it",
            err=True,
        )
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None


def _terminal() -> AbstractContextManager[Screen]:
    """Return the live view on a terminal that can redraw, else plain lines."""
    if not sys.stdout.isatty():
        return nullcontext(PlainLines())
    from orchestrator.report.console import make_console

    console = make_console()
    if console.is_dumb_terminal:
        return nullcontext(PlainLines())
    from orchestrator.report.live import LiveView

    return LiveView(console)


def _until_ended(read: Callable[[], RunView], shown: Screen, run_id: str, patience: float) -> RunView:
    from orchestrator.report.lines import Attendance

    last: RunView | None = None
    attendance = Attendance()
    begun = answered = time.monotonic()
    while True:
        note = ""
        try:
            last = read()
            answered = time.monotonic()
        except Unreachable as error:
            silent = time.monotonic() - answered
            if last is None or silent > PATIENCE_SECONDS:
                raise
            note = f"{error.message}; trying again ({silent:.0f} s)"
        shown.update(last, note)
        if last.ended:
            return last
        # Its end would never be seen.
        if attendance.warning(last) and not note and time.monotonic() - begun >= patience:
            raise OrchError(
                f"{run_id} goes on without a scheduler",
                last.rescue,
                exit_code=Exit.UNREACHABLE,
            )
        time.sleep(LAST_POLL_SECONDS if last.phase in LAST_PHASES else POLL_SECONDS)
