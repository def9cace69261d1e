"""The last lines of the output, for the beacon: what a person would see, without secrets, colours or cursor moves."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.agent.redact import Redactor

BYTES = 16 * 1024
LINES = 20
WIDTH = 300
# Escape sequences (CSI, OSC and the two-character ones), then every other control character.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def read_tail(path: Path, redactor: Redactor) -> tuple[str, ...]:
    """Return the last lines of a file, at most LINES of at most WIDTH characters; none when there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - BYTES))
            data = file.read(BYTES)
    except OSError:
        return ()
    if size > BYTES:
        # The first line is half a line, which may begin with half a secret.
        data = data.partition(b"\n")[2]
    # What may be the beginning of a secret stays out until the rest of it is there.
    shown = redactor.feed(data)
    redactor.flush()
    return clean(shown.decode(errors="replace"))


def clean(text: str) -> tuple[str, ...]:
    """Return the last lines of a text as a terminal would leave them: what `\\r` wrote over is gone."""
    lines = []
    for line in text.split("\n"):
        left = line.rstrip("\r").rpartition("\r")[2]
        lines.append(_CONTROL.sub("", _ESCAPES.sub("", left)).rstrip()[:WIDTH])
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines[-LINES:])
