"""Spot prices of one type for a terminal and as JSON: each zone now, its range, and its course as a small chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.core.facts import OnDemandPrice
from orchestrator.core.market import Pool, without_price
from orchestrator.core.units import counted, format_usd, iso, usd
from orchestrator.report.text import clean, percent, sparkline

CHART_WIDTH = 30
NARROW_CHART, WIDE = 12, 100


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """What is known of the prices of a type in a region; `offered` are the zones in which it can be had."""

    instance_type: str
    where: str
    days: int
    pools: Sequence[Pool]
    offered: Sequence[str]
    on_demand: OnDemandPrice | None


def show_prices(console: Console, sheet: PriceSheet) -> None:
    """Print the sheet; the chart of a zone goes from its own lowest to its own highest price."""
    console.print(
        Text(f"{clean(sheet.instance_type)} spot, {sheet.where}, the last {counted(sheet.days, 'day')}", style="bold")
    )
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in ("ZONE", "$/HOUR", "LOW", "MEAN", "HIGH", "SAVING", "COURSE"):
        table.add_column(name, no_wrap=True, justify="left" if name in {"ZONE", "COURSE"} else "right")
    width = CHART_WIDTH if console.width >= WIDE else NARROW_CHART
    for pool in sheet.pools:
        figures = [_price(amount) for amount in (pool.now, pool.low, pool.mean, pool.high)]
        zone = Text(clean(pool.zone), style="" if pool.zone in sheet.offered else "dim")
        table.add_row(zone, *figures, _saving(sheet, pool), sparkline(pool.samples(width), width))
    if sheet.pools:
        console.print(table)
    else:
        console.print("  no spot price is listed: it cannot be had as spot here")
    for name in without_price(sheet.offered, sheet.pools):
        console.print(Text(f"{clean(name)}: offered, but no spot price is listed", style="yellow"))
    for pool in sheet.pools:
        if pool.zone not in sheet.offered:
            console.print(
                Text(f"{clean(pool.zone)}: has a price, but EC2 does not offer the type there", style="yellow")
            )
    if sheet.on_demand is not None:
        price = f"on-demand {format_usd(sheet.on_demand.price)}: {clean(sheet.on_demand.source)}"
        console.print(Text(f"{price}, read {iso(sheet.on_demand.time)}", style="dim"))
    else:
        console.print(Text("on-demand price not known", style="dim"))


def _price(amount: int) -> str:
    return f"{amount / 1_000_000:.4f}"


def _saving(sheet: PriceSheet, pool: Pool) -> str:
    listed = sheet.on_demand.price if sheet.on_demand else 0
    return percent(listed - pool.now, listed) if listed else "-"


def prices_json(sheet: PriceSheet, region: str, cloud: str) -> dict[str, Any]:
    """Return what `orch prices --json` prints."""
    listed = sheet.on_demand
    return {
        "instance_type": sheet.instance_type,
        "cloud": cloud,
        "region": region,
        "days": sheet.days,
        "on_demand_usd": usd(listed.price) if listed else None,
        "on_demand_source": listed.source if listed else None,
        "on_demand_read": iso(listed.time) if listed else None,
        "zones": [
            {
                "zone": pool.zone,
                "offered": pool.zone in sheet.offered,
                "now_usd": usd(pool.now),
                "low_usd": usd(pool.low),
                "mean_usd": usd(pool.mean),
                "high_usd": usd(pool.high),
                "changes": [{"time": iso(row.time), "price_usd": usd(row.price)} for row in pool.rows],
            }
            for pool in sheet.pools
        ],
        "without_price": without_price(sheet.offered, sheet.pools),
    }
