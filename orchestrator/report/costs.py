"""Costs as CSV and as a table of totals. Cells that a spreadsheet would take for a formula are made text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from orchestrator.core.totals import Total, whole_of
from orchestrator.core.units import format_duration, format_usd
from orchestrator.report.text import clean, percent

BILL_COLUMNS = (
    "kind", "id", "instance_type", "zone", "lifecycle", "start", "seconds", "price_usd", "usd", "estimate",
)  # fmt: skip
TOTAL_COLUMNS = ("runs", "instance_seconds", "spot_usd", "on_demand_usd", "saving_usd")


def bill_csv(bill: Mapping[str, Any]) -> str:
    """Return a bill as CSV: a line for each instance-hour and other charge; `usd` adds up to the total."""
    rows: list[Sequence[Any]] = []
    for item in bill["instances"]:
        what = ("instance", item["instance_id"], item["instance_type"], item["zone"], item["lifecycle"])
        estimate = "" if item.get("price_known", True) else "price not recorded"
        rows += [(*what, h["start"], h["seconds"], h["price_usd"], h["usd"], estimate) for h in item["hours"]]
    rows += [(item["kind"], item["id"], "", "", "", "", "", "", item["usd"], "list price") for item in bill["other"]]
    return _csv(BILL_COLUMNS, rows)


def totals_csv(totals: Iterable[Total], by: str) -> str:
    """Return totals as CSV, without a line of their sum."""
    values = [total.to_json() for total in totals]
    return _csv((by, *TOTAL_COLUMNS), [(value["key"], *(value[name] for name in TOTAL_COLUMNS)) for value in values])


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    text = clean(str(value))
    return f"'{text}" if isinstance(value, str) and text[:1] in {"=", "+", "@"} else text


def totals_table(totals: Sequence[Total], by: str) -> Table:
    """Return the totals with their sum below."""
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in (by.upper(), "RUNS", "NODE TIME", "COST", "ON-DEMAND", "SAVING"):
        table.add_column(name, no_wrap=True, justify="left" if name == by.upper() else "right")
    for total in (*totals, whole_of(totals)):
        saved = percent(total.on_demand - total.spot, total.on_demand)
        money = (format_usd(total.spot), format_usd(total.on_demand), saved)
        style = "bold" if total.key == "total" and total not in totals else ""
        table.add_row(clean(total.key), str(len(total.runs)), format_duration(total.seconds), *money, style=style)
    return table
