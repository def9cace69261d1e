"""A reconciliation as text: the mark, each difference with its line, and what AWS's files say of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.core.units import counted
from orchestrator.report.text import clean

COLUMNS = ("WHERE", "RESOURCE", "START (UTC)", "OURS", "AWS", "WHAT DIFFERS")
RIGHT = frozenset({"OURS", "AWS"})


def mark(bill: Mapping[str, Any]) -> str:
    """Return what a bill's heading says of its reconciliation, with a blank in front; nothing where there is none."""
    found = bill.get("reconciliation")
    if not found:
        return ""
    count = len(found["differences"])
    return " (reconciled)" if found["reconciled"] else f" (held against AWS's: {counted(count, 'difference')})"


def show_reconciliation(console: Console, found: Mapping[str, Any]) -> None:
    """Print a reconciliation (`core.reconcile.Reconciliation.to_json`)."""
    files = found["files"]
    read = clean(str(files[0])) if len(files) == 1 else f"{len(files)} files"
    head = f"held against {read}: lines that agree: {found['matched']}, differences: {len(found['differences'])}"
    console.print(Text(head, style="bold green" if found["reconciled"] else "bold yellow"))
    if found["differences"]:
        console.print(_differences(found["differences"]))
    console.print(f"compared: ${found['ours_usd']} here, ${found['theirs_usd']} charged by AWS")
    for note in found["notes"]:
        console.print(Text(clean(str(note)), style="dim"))


def _differences(items: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
    for item in items:
        cells = (item["where"], item["resource"], item["start"], item["ours_usd"], item["theirs_usd"], item["what"])
        table.add_row(*(clean(str(cell)) for cell in cells))
    return table
