"""The table of runs: from the rows of `orch status --json`, so that both say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestrator.core.lasting import lasted
from orchestrator.core.units import format_duration, format_usd, parse_time, to_micro
from orchestrator.report.figures import accuracy
from orchestrator.report.text import clean, percent

COLUMNS = ("RUN", "PHASE", "NODES", "STARTED", "TIME", "COST", "ON-DEMAND", "SAVING", "CLOUD", "RESULT")
RIGHT = frozenset({"NODES", "TIME", "COST", "ON-DEMAND", "SAVING"})
NARROW = frozenset({"RUN", "PHASE", "NODES", "TIME", "COST", "SAVING"})
WIDE = 120
STYLES = {
    "finished": "green", "failed": "red", "interrupted": "yellow", "no-capacity": "yellow", "capped": "yellow",
    "stopped": "cyan", "running": "bold green", "recovering": "bold yellow", "unknown": "dim",
}  # fmt: skip


def status_table(rows: Sequence[Mapping[str, Any]], now: datetime, width: int) -> Table:
    """Return the table of runs; ages are measured against `now`. Narrow terminals get fewer columns, never cut ids."""
    columns = [name for name in COLUMNS if width >= WIDE or name in NARROW]
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=name != "RESULT", justify="right" if name in RIGHT else "left")
    for row in rows:
        cells = dict(zip(COLUMNS, _cells(row, now), strict=True))
        table.add_row(*(cells[name] for name in columns))
    return table


def _cells(row: Mapping[str, Any], now: datetime) -> list[str | Text]:
    phase = clean(str(row["phase"]))
    return [
        clean(str(row["run_id"])),
        Text(phase, style=STYLES.get(phase, "")),
        "-" if row["num_nodes"] is None else str(row["num_nodes"]),
        f"{format_duration(now - parse_time(row['started']))} ago",
        _lasted(row, now),
        *_money(row),
        clean(str(row.get("cloud", ""))),
        _result(row),
    ]


def _lasted(row: Mapping[str, Any], now: datetime) -> str:
    if row["phase"] == "unknown":
        return "-"
    ended = parse_time(row["ended"]) if row["ended"] else None
    return format_duration(lasted(parse_time(row["started"]), ended, now))


def _money(row: Mapping[str, Any]) -> list[str]:
    if row["spot_usd"] is None or row["on_demand_usd"] is None:
        return ["-", "-", "-"]
    spot, listed = to_micro(row["spot_usd"]), to_micro(row["on_demand_usd"])
    return [format_usd(spot), format_usd(listed), percent(listed - spot, listed)]


def _result(row: Mapping[str, Any]) -> str:
    """Return accuracy where there is one, and the reason where the run did not finish."""
    found = accuracy(row.get("metrics") or {})
    message = "" if row["phase"] == "finished" else clean(str(row.get("message", "")))
    return " · ".join(part for part in (found, message) if part)
