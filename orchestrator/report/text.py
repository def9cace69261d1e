"""Text from elsewhere made safe for a terminal, and small things drawn with characters. Pure.

Whatever a node printed is remote text: it passes through `clean` before anybody sees it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

TAB = "    "
BARS = "▁▂▃▄▅▆▇█"
# CSI, then OSC and other strings up to their terminator (a line's end also ends them), then any other escape.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)


def clean(text: str) -> str:
    """Return one line of text without escape sequences, control characters and bidirectional overrides.

    Of a line that was rewritten with carriage returns (progress bars) the last version is kept.
    """
    versions = [part for part in _ESCAPES.sub("", text).split("\r") if part.strip()]
    line = versions[-1] if versions else ""
    return "".join(_safe(character) for character in line.replace("\t", TAB)).rstrip()


def _safe(character: str) -> str:
    # Cc: control, Cf: format (bidirectional overrides, zero-width), Cs: lone surrogates, Zl and Zp: line separators.
    return "" if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else character


def clean_lines(text: str) -> list[str]:
    """Return the lines of `text`, each cleaned."""
    return [clean(line) for line in text.split("\n")]


def shorten(text: str, width: int) -> str:
    """Return `text` in at most `width` characters."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def percent(part: float, whole: float) -> str:
    """Return `part` of `whole` as a whole percentage; nothing of nothing is 0%."""
    return f"{100 * part / whole:.0f}%" if whole else "0%"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the course of `values` in at most `width` characters; each stands for the mean of its share of them."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width < 1:
        return ""
    count = min(width, len(finite))
    shares = [finite[i * len(finite) // count : (i + 1) * len(finite) // count] for i in range(count)]
    means = [sum(share) / len(share) for share in shares]
    low, high = min(means), max(means)
    span = high - low or 1.0
    return "".join(BARS[min(len(BARS) - 1, int((mean - low) / span * len(BARS)))] for mean in means)
