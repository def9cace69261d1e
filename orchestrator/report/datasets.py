"""Data sets as tables and JSON: what there is, and the files of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.core.estimates import storage_month
from orchestrator.core.units import counted, format_size, format_usd, iso, usd
from orchestrator.core.volumes import Snapshot
from orchestrator.report.text import clean
from orchestrator.run.datasets import Dataset

SHORT = 12  # digits of a digest that a person is shown
_RIGHT = {"FILES", "SIZE", "$/MONTH", "PHASE"}


def list_table(items: Sequence[Dataset], snapshots: Sequence[Snapshot] = ()) -> Table:
    """Return a row for each version of each data set; its month includes that of its snapshots, where it has any."""
    table = _table("NAME", "VERSION", "STATE", "FILES", "SIZE", "$/MONTH", "SNAPSHOT", "TIME (UTC)", "SOURCE")
    for item in items:
        source = item.manifest.source if item.manifest else item.fault
        made = _of(item, snapshots)
        table.add_row(
            item.name,
            item.version,
            item.state,
            f"{item.objects:,}",
            format_size(item.size),
            format_usd(storage_month(item.size) + sum(snapshot.monthly for snapshot in made)),
            "yes" if any(snapshot.state == "completed" for snapshot in made) else made[0].state if made else "",
            f"{item.last:%Y-%m-%d %H:%M}",
            clean(source),
            style="" if item.state == "ready" else "yellow",
        )
    return table


def show(console: Console, item: Dataset, users: Sequence[str], snapshots: Sequence[Snapshot] = ()) -> None:
    """Print a data set: what it is, what it costs, who uses it, and its files."""
    files = item.manifest.files if item.manifest else ()
    facts = {
        "url": item.url,
        "digest": item.manifest.digest if item.manifest else item.state,
        "built": iso(item.last),
        "from": clean(item.manifest.source) if item.manifest else clean(item.fault),
        "size": f"{format_size(item.size)} in {counted(item.objects, 'file')}",
        "storage": f"{format_usd(storage_month(item.size))} a month (S3 Standard, list price of us-east-1)",
        "snapshot": "; ".join(map(_snapshot, _of(item, snapshots))) or "none (`orch dataset snapshot` makes one)",
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


def item_json(item: Dataset, snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Return a data set with its snapshots as `orch dataset list --json` prints it."""
    return item.to_json() | {"snapshots": [snapshot_json(made) for made in _of(item, snapshots)]}


def snapshot_json(made: Snapshot) -> dict[str, Any]:
    """Return a snapshot with what it costs a month."""
    return made.to_json() | {"usd_month": usd(made.monthly)}


def _of(item: Dataset, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    return [made for made in snapshots if (made.name, made.version) == (item.name, item.version)]


def _snapshot(made: Snapshot) -> str:
    return f"{made.snapshot_id}, {made.state}, for volumes of {made.size_gib} GiB, {format_usd(made.monthly)} a month"


def dataset_json(item: Dataset, users: Sequence[str], snapshots: Sequence[Snapshot] = ()) -> dict[str, Any]:
    """Return what `orch dataset show --json` prints."""
    files = item.manifest.files if item.manifest else ()
    rows = [{"path": f.path, "size": f.size, "sha256": f.sha256, "phase": f.phase} for f in files]
    return item_json(item, snapshots) | {"used_by": list(users), "objects": rows}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=True, justify="right" if name in _RIGHT else "left")
    return table
