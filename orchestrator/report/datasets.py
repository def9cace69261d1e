"""Data sets as tables and JSON: what there is, and the files of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.core.estimates import storage_month
from orchestrator.core.units import counted, format_size, format_usd, iso
from orchestrator.report.text import clean
from orchestrator.run.datasets import Dataset

SHORT = 12  # digits of a digest that a person is shown
_RIGHT = {"FILES", "SIZE", "$/MONTH", "PHASE"}


def list_table(items: Sequence[Dataset]) -> Table:
    """Return a row for each version of each data set."""
    table = _table("NAME", "VERSION", "STATE", "FILES", "SIZE", "$/MONTH", "TIME (UTC)", "SOURCE")
    for item in items:
        source = item.manifest.source if item.manifest else item.fault
        table.add_row(
            item.name,
            item.version,
            item.state,
            f"{item.objects:,}",
            format_size(item.size),
            format_usd(storage_month(item.size)),
            f"{item.last:%Y-%m-%d %H:%M}",
            clean(source),
            style="" if item.state == "ready" else "yellow",
        )
    return table


def show(console: Console, item: Dataset, users: Sequence[str]) -> None:
    """Print a data set: what it is, what it costs, who uses it, and its files."""
    files = item.manifest.files if item.manifest else ()
    facts = {
        "url": item.url,
        "digest": item.manifest.digest if item.manifest else item.state,
        "built": iso(item.last),
        "from": clean(item.manifest.source) if item.manifest else clean(item.fault),
        "size": f"{format_size(item.size)} in {counted(item.objects, 'file')}",
        "storage": f"{format_usd(storage_month(item.size))} a month (S3 Standard, list price of us-east-1)",
        "used by": ", ".join(users) or "no run that goes on",
        "name it": f"data: {{{item.name}: {{source: dataset:{item.name}}}}}",
    }
    for name, text in facts.items():
        console.print(f"{name:<8} {text}", soft_wrap=True)
    table = _table("PHASE", "SIZE", "SHA256", "FILE")
    for file in sorted(files, key=lambda file: (file.phase, file.path)):
        table.add_row(str(file.phase), format_size(file.size), file.sha256[:SHORT], clean(file.path))
    if files:
        console.print(table)


def dataset_json(item: Dataset, users: Sequence[str]) -> dict[str, Any]:
    """Return what `orch dataset show --json` prints."""
    files = item.manifest.files if item.manifest else ()
    rows = [{"path": f.path, "size": f.size, "sha256": f.sha256, "phase": f.phase} for f in files]
    return item.to_json() | {"used_by": list(users), "objects": rows}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=True, justify="right" if name in _RIGHT else "left")
    return table
