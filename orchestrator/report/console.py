"""The rich console everything is printed on: no markup, so that nothing remote can style or forge what is shown."""

from __future__ import annotations

import os
import sys

from rich.console import Console

# Wide enough that no table of ours loses a column in a file or a pipe.
PIPED_WIDTH = 160


def make_console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr; a pipe gets plain text, wide lines and no colour."""
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty()
    width = PIPED_WIDTH if piped and not os.environ.get("COLUMNS") else None
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)
