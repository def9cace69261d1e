"""What the preflight found, node by node: from the rows of `orch doctor RUN --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from orchestrator.core.units import format_rate
from orchestrator.report.text import clean


def preflight_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each node: its checks, its best and worst link, and whether it is fit."""
    names = list(dict.fromkeys(name for row in rows for name, _, _ in row["checks"]))
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for title in ("NODE", "START", "INSTANCE", *(name.upper() for name in names), "BEST LINK", "WORST LINK", "RESULT"):
        table.add_column(title)
    for row in rows:
        checks = {name: (state, detail) for name, state, detail in row["checks"]}
        links = sorted(row["links"].values())
        table.add_row(
            str(row["rank"]),
            str(row["generation"]),
            clean(row["instance_id"]),
            *(_cell(*checks.get(name, ("ok", "-"))) for name in names),
            format_rate(links[-1]) if links else "-",
            format_rate(links[0]) if links else "-",
            _result(row),
        )
    return table


def preflight_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is to be said of the newest start as a whole."""
    newest = max((row["generation"] for row in rows), default=0)
    of_gang = [row for row in rows if row["generation"] == newest and row["seconds"] is not None]
    if not of_gang:
        return []
    row = of_gang[0]
    parts = [f"all-reduce over all nodes {format_rate(row['all_reduce'])}"] if row["all_reduce"] else []
    parts += [f"by torch.distributed {format_rate(row['torch'])}"] if row["torch"] else []
    parts += [f"a link should give {format_rate(row['expected'])}"] if row["expected"] else []
    return [", ".join([*parts, f"took {row['seconds']:.1f} s"]), *(clean(note) for note in row["notes"])]


def _cell(state: str, detail: str) -> str:
    return clean(detail) if state == "ok" else f"{state}: {clean(detail)}"


def _result(row: Mapping[str, Any]) -> str:
    if row["unfit"]:
        return f"unfit: {clean(row['unfit'])}"
    return "fit" if row["seconds"] is not None else "waiting for the others"
