"""The cost and usage report, CUR 2.0, as Data Exports writes it in CSV. Pure.

Columns: "Cost and Usage Report (CUR) 2.0" table dictionary (AWS Data Exports user guide). An export may hold any of
them; `NEEDED` are those without which nothing can be compared. Lines of instances are used in windows (an hour, or a
day, of the clock); charges for other things of the same instances and for volumes are kept beside them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation

from orchestrator.core.charged import Charged, parse_money, refuse
from orchestrator.core.units import parse_time

NEEDED = (
    "line_item_resource_id",
    "line_item_line_item_type",
    "line_item_usage_type",
    "line_item_usage_start_date",
    "line_item_usage_end_date",
    "line_item_usage_amount",
    "line_item_unblended_cost",
    "line_item_currency_code",
)
# Machines: `USW2-SpotUsage:p3.16xlarge`, `BoxUsage:p3.16xlarge` (the region's prefix is left out in us-east-1).
MACHINES = ("SpotUsage", "BoxUsage", "DedicatedUsage")
USED = frozenset({"Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"})


def parse_cur(file: str, text: str) -> tuple[Charged, ...]:
    """Return the lines of an export that are about instances or volumes. Raises BadInput naming every faulty line."""
    what = "a CUR 2.0 export in CSV"
    rows = csv.reader(io.StringIO(text), strict=True)
    faults: list[str] = []
    found: list[Charged] = []
    try:
        header = next(rows, [])
        missing = [name for name in NEEDED if name not in header]
        if missing:
            raise refuse(file, [f"line 1: no column {name}" for name in missing], what)
        for cells in rows:
            try:
                charged = _charged(file, rows.line_num, header, cells)
            except ValueError as error:
                faults.append(f"line {rows.line_num}: {error}")
                continue
            if charged is not None:
                found.append(charged)
    except csv.Error as error:
        faults.append(f"line {rows.line_num}: {error}")
    if faults:
        raise refuse(file, faults, what)
    return tuple(found)


def _charged(file: str, number: int, header: list[str], cells: list[str]) -> Charged | None:
    if not cells:
        return None
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} values where the header has {len(header)}")
    row = dict(zip(header, cells, strict=True))
    resource = row["line_item_resource_id"].rpartition("/")[2]
    start, end = _time(row, "line_item_usage_start_date"), _time(row, "line_item_usage_end_date")
    if end <= start:
        raise ValueError("line_item_usage_end_date is not after line_item_usage_start_date")
    if row["line_item_currency_code"] != "USD":
        raise ValueError(f"line_item_currency_code is {row['line_item_currency_code']!r}, not USD")
    seconds = _seconds(row["line_item_usage_amount"])
    cost = parse_money(row["line_item_unblended_cost"])
    if not resource.startswith(("i-", "vol-")):
        return None
    usage, kind = row["line_item_usage_type"], row["line_item_line_item_type"]
    if kind in USED and any(name in usage for name in MACHINES):
        return Charged(file, number, "window", resource, usage, start, end, cost, seconds)
    return Charged(file, number, "other", resource, usage if kind in USED else f"{kind} {usage}", start, end, cost)


def _time(row: Mapping[str, str], name: str) -> datetime:
    try:
        return parse_time(row[name])
    except ValueError as error:
        raise ValueError(f"{name} {row[name]!r} is not like 2026-11-20T12:00:00.000Z") from error


def _seconds(text: str) -> int:
    """Return an amount of hours in seconds. Of other units (GB-months) it means nothing and is not used."""
    try:
        amount = Decimal(text)
        return round(amount * 3600)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise ValueError(f"line_item_usage_amount {text!r} is not a number") from error
