"""The rich console everything is printed on: no markup, so that nothing remote can style or forge what is shown."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console

# No line of ours is as long: in a file or a pipe nothing is wrapped, and no table loses a column.
PIPED_WIDTH = 100_000


class _Plain(Console):
    """For files and pipes: lines end with their last character, where rich fills up the cells of a table."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, without blanks at the ends of lines."""
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))
        self.file.flush()  # as rich does: what follows may go to the other stream of the same pipe


def make_console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr; a pipe gets plain text, whole lines (unless COLUMNS is set), no colour."""
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty()
    width = PIPED_WIDTH if piped and not os.environ.get("COLUMNS") else None
    made = _Plain if piped else Console
    return made(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)
