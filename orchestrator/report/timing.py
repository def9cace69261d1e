"""The way from the launch to the first step, node by node: from the rows of `orch status --timing --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from orchestrator.core.timing import STAGES

NOTE = (
    "Seconds of each stage, one that was never left until that start ended; a plus marks the one a node is still in. "
    "rendezvous: until the first progress line, which a script may never write; first step: until the first line that "
    "tells a step. A machine kept from the generation before begins there."
)


def timing_rows(starts: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a table of text, its header first; stages that no node entered are left out. Nothing for no starts."""
    if not starts:
        return []
    stages = [name for name in STAGES if any(name in item["stages"] or item["now"] == name for item in starts)]
    several = len({item["generation"] for item in starts}) > 1
    header = ("node", *(("start",) if several else ()), *stages, "total")
    rows = [
        (
            str(item["rank"]),
            *((str(item["generation"]),) if several else ()),
            *(_cell(item, name) for name in stages),
            "-" if item["total"] is None else f"{item['total']:.1f}{_mark(item['now'])}",
        )
        for item in starts
    ]
    return [header, *rows]


def _cell(item: Mapping[str, Any], name: str) -> str:
    value, still = item["stages"].get(name), item["now"] == name
    return f"{value:.1f}{_mark(still)}" if value is not None else (_mark(still) or "-")


def _mark(still: object) -> str:
    return "+" if still else ""


def timing_table(starts: Sequence[Mapping[str, Any]]) -> Table:
    """Return the same for a terminal."""
    header, *rows = timing_rows(starts)
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in header:
        table.add_column(name.upper(), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
