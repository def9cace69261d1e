"""What training scripts wrote to their progress file, as it lies in S3 (`metrics.jsonl`). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

# Figures of progress lines that are no measurement of the run, and so not among its metrics.
NOT_METRICS = frozenset({"time", "event"})


def parse_progress(body: bytes) -> tuple[Mapping[str, Any], ...]:
    """Return the JSON objects of progress lines; anything else a script wrote there is passed over."""
    found = []
    for line in body.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return tuple(found)


def newest_figures(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the newest value of every figure in the progress lines."""
    figures: dict[str, Any] = {}
    for line in lines:
        figures |= {k: v for k, v in line.items() if k not in NOT_METRICS and isinstance(v, int | float | str)}
    return figures
