"""The bill as text, from its JSON form: the same for a run just ended, one read from S3, and one kept here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.core.facts import EC2_INTERRUPTED
from orchestrator.core.units import format_duration, parse_time, to_micro, usd
from orchestrator.report.reconcile import mark, show_reconciliation
from orchestrator.report.text import clean, percent

COLUMNS = (
    "INSTANCE", "TYPE", "ZONE", "BUY", "START (UTC)", "END", "SECONDS", "SECONDS AT PRICE IN FORCE", "USD OF EACH HOUR",
    "USD", "ON-DEMAND",
)  # fmt: skip
RIGHT = frozenset({"SECONDS", "USD OF EACH HOUR", "USD", "ON-DEMAND"})
NARROW = frozenset({"INSTANCE", "ZONE", "SECONDS AT PRICE IN FORCE", "USD", "ON-DEMAND"})
WIDE = 150
NAMES = {
    "ebs": "EBS volumes",
    "ipv4": "public IPv4 addresses",
    "s3-requests": "S3 requests",
    "s3-storage": "S3 storage",
}
END_REASONS = {
    "Client.UserInitiatedShutdown": "terminated",
    "Client.InstanceInitiatedShutdown": "shut itself down",
}


def show_bill(console: Console, bill: Mapping[str, Any]) -> None:
    """Print a bill (`core.bill.Bill.to_json`): a row for each instance, the other lines, totals, and the rule."""
    state = "bill" if bill.get("final", True) else "bill so far (instances are still there)"
    console.print(Text(f"{state} of {clean(str(bill['run_id']))}{mark(bill)}", style="bold"))
    if not bill["instances"]:
        console.print("  nothing was launched: $0.000000")
        return
    console.print(_instances(bill["instances"], console.width))
    for line in _others(bill["other"]):
        console.print(line)
    console.print(_totals(bill))
    if not all(item.get("price_known", True) for item in bill["instances"]):
        note = "hours marked ? have no recorded price; they are charged at the on-demand price, the most they can cost"
        console.print(Text(note, style="yellow"))
    if bill.get("reconciliation"):
        show_reconciliation(console, bill["reconciliation"])
    for source in bill.get("on_demand_sources", ()):
        console.print(Text(f"on-demand price of {clean(str(source))}", style="dim"))
    if bill.get("rule"):
        console.print(Text(f"rule: {clean(str(bill['rule']))}", style="dim"))


def _others(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each kind of what is not a machine, and of how many it is the sum."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        by_kind.setdefault(str(item["kind"]), []).append(item)
    lines = []
    for kind, same in by_kind.items():
        amount = usd(sum(to_micro(item["usd"]) for item in same))
        about = " (estimate from the list price)" if any(item.get("estimate") for item in same) else ""
        count = f" of {len(same)}" if len(same) > 1 else ""
        lines.append(f"{clean(NAMES.get(kind, kind))}{count}  ${amount}{about}")
    return lines


def _instances(items: Sequence[Mapping[str, Any]], width: int) -> Table:
    """Return a row for each instance, whatever their number; a narrow terminal gets what the sums are made of."""
    columns = [name for name in COLUMNS if width >= WIDE or name in NARROW]
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=True, justify="right" if name in RIGHT else "left")
    for item in items:
        cells = dict(zip(COLUMNS, _cells(item), strict=True))
        table.add_row(*(cells[name] for name in columns))
    return table


def _cells(item: Mapping[str, Any]) -> list[str]:
    unknown = "" if item.get("price_known", True) else "?"
    hours = item["hours"]
    return [
        clean(str(item["instance_id"])),
        clean(str(item["instance_type"])),
        clean(str(item["zone"])),
        clean(str(item["lifecycle"])),
        f"{parse_time(item['start']):%m-%d %H:%M:%S}",
        end_of(item),
        str(item["seconds"]),
        "\n".join(f"{hour['seconds']} at {hour['price_usd']}{unknown}" for hour in hours),
        "\n".join(str(hour["usd"]) for hour in hours),
        str(item["usd"]),
        str(item["on_demand_usd"]),
    ]


def end_of(item: Mapping[str, Any]) -> str:
    """Return in a word or two how an instance of a bill ended."""
    reason = item.get("end_reason")
    if item.get("end") is None:
        return "still there"
    if reason in EC2_INTERRUPTED:
        return "taken by EC2"
    return END_REASONS.get(str(reason), clean(str(reason or "ended")))


def _totals(bill: Mapping[str, Any]) -> Table:
    low, high = to_micro(bill["spot_usd_low"]), to_micro(bill["spot_usd_high"])
    on_demand, saving = to_micro(bill["on_demand_usd"]), to_micro(bill["saving"])
    seconds = sum(int(item["seconds"]) for item in bill["instances"])
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column()
    table.add_row(
        "total", f"${bill['spot_usd_high']}", f"for {format_duration(seconds)} of instance time", style="bold"
    )
    if low != high:
        table.add_row(
            "at least",
            f"${bill['spot_usd_low']}",
            "as far as AWS has not said what it waives (taken in the first hour) or its price",
        )
    table.add_row("on-demand", f"${bill['on_demand_usd']}", "the same seconds at the on-demand price")
    table.add_row("saving", f"${bill['saving']}", percent(saving, on_demand), style="bold green" if saving > 0 else "")
    return table
