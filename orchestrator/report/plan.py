"""The plan as a person reads it before any money is spent: offers, quotas, what will be made, what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.core.forecast import Forecast
from orchestrator.core.plan import Offer, Plan, QuotaLine
from orchestrator.core.units import MicroUSD, format_duration, format_usd, usd
from orchestrator.report.text import clean, percent

OFFERS_SHOWN = 12
WIDE = 118


@dataclass(frozen=True, slots=True)
class PlanSheet:
    """What a plan is shown with: `limit` is max_duration, `data`, `will_create` and `notes` are lines."""

    title: str
    plan: Plan
    limit: timedelta
    will_create: Sequence[str] = ()
    notes: Sequence[str] = ()
    data: Sequence[str] = ()


def show_plan(console: Console, sheet: PlanSheet) -> None:
    """Print a plan that has at least one offer."""
    console.print(Text(clean(sheet.title), style="bold"))
    console.print(offers_table(sheet.plan, sheet.limit, console.width))
    more = len(sheet.plan.offers) - OFFERS_SHOWN
    if more > 0:
        console.print(f"  and {more} more, tried in order of expected cost")
    for line in forecast_lines(sheet.plan):
        console.print(f"  ranges   {line}")
    for line in saving_lines(sheet.plan):
        console.print(f"  saving   {line}")
    for line in quota_lines(sheet.plan.quotas):
        console.print(f"  quota    {line}")
    for line in sheet.data:
        console.print(f"  data     {clean(line)}")
    for line in sheet.will_create:
        console.print(f"  creates  {clean(line)}")
    for what, why in sheet.plan.rejected:
        console.print(Text(f"  left out {clean(what)}: {clean(why)}", style="yellow"))
    for line in sheet.notes:
        console.print(f"  note     {clean(line)}")


def offers_table(plan: Plan, limit: timedelta, width: int) -> Table:
    """Return the offers in the order they will be tried, the chosen one first; narrow terminals get fewer columns."""
    columns = [
        "",
        "INSTANCE",
        "ZONE",
        "BUY",
        "$/HOUR",
        "ON-DEMAND",
        "SAVING",
        "TIME",
        f"COST OF {plan.num_nodes}",
        "ON-DEMAND",
    ]
    shown = [index for index in range(len(columns)) if width >= WIDE or index not in {5, 9}]
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for index in shown:
        table.add_column(columns[index], no_wrap=True, justify="right" if index > 3 else "left")
    for index, offer in enumerate(plan.offers[:OFFERS_SHOWN]):
        cells = _cells(offer, limit, plan.forecast(index), chosen=index == 0)
        table.add_row(*(cells[column] for column in shown), style="bold green" if index == 0 else "dim")
    return table


def _cells(offer: Offer, limit: timedelta, forecast: Forecast | None, *, chosen: bool) -> list[str]:
    bound = "" if offer.hours is not None else "≤ "
    time = timedelta(hours=offer.hours) if offer.hours is not None else limit
    figures = [format_duration(time), format_usd(offer.cost), format_usd(offer.on_demand_cost)]
    if forecast is not None:
        low, high = (format_duration(timedelta(hours=hours)) for hours in forecast.hours)
        figures = [f"{low}-{high}", _dollars(forecast.cost), _dollars(forecast.on_demand)]
    return [
        "✔" if chosen else " ",
        offer.instance_type,
        offer.zone,
        offer.lifecycle,
        f"{offer.price / 1_000_000:.4f}",
        f"{offer.on_demand / 1_000_000:.4f}",
        percent(offer.on_demand - offer.price, offer.on_demand),
        *(f"{bound}{figure}" for figure in figures),
    ]


def _dollars(amounts: tuple[MicroUSD, MicroUSD]) -> str:
    low, high = (format_usd(amount) for amount in amounts)
    return f"{low}-{high.removeprefix('$')}"


def offer_json(offer: Offer, forecast: Forecast | None = None) -> dict[str, Any]:
    """Return an offer as `orch plan --json` prints it: dollars as strings with six places, `hours` null if unknown."""
    return {
        "instance_type": offer.instance_type,
        "zone": offer.zone,
        "lifecycle": offer.lifecycle,
        "price_usd": usd(offer.price),
        "on_demand_price_usd": usd(offer.on_demand),
        "hours": offer.hours,
        "cost_usd": usd(offer.cost),
        "on_demand_cost_usd": usd(offer.on_demand_cost),
        "quota_code": offer.quota_code,
        "placement_group": offer.placement_group,
        "efa": offer.efa,
        "forecast": None if forecast is None else forecast.to_json(),
    }


def forecast_lines(plan: Plan) -> list[str]:
    """Return where the ranges of the chosen offer come from; nothing where it has none."""
    chosen = plan.forecast(0)
    return [] if chosen is None else [", ".join(chosen.sources)]


def saving_lines(plan: Plan) -> list[str]:
    """Return what spot saves, and of what: the column is of the price alone, the whole run has more to pay for."""
    first, chosen = plan.offers[0], plan.forecast(0)
    if first.lifecycle != "spot":
        return []
    price = f"{percent(first.on_demand - first.price, first.on_demand)} of the price of a node-hour"
    if chosen is None:
        return [price]
    least, most = (f"{share:.0%}" for share in chosen.saving)
    whole = least if least == most else f"{least} to {most}"
    return [f"{price}; {whole} of the whole run, with disks, addresses and S3"]


def quota_lines(quotas: Sequence[QuotaLine]) -> list[str]:
    """Return one line for each quota: what the largest of its offers needs, and what is held."""
    largest: dict[str, QuotaLine] = {}
    for quota in quotas:
        known = largest.get(quota.code)
        if known is None or quota.needed > known.needed:
            largest[quota.code] = quota
    return [
        f"{q.code} ({q.lifecycle}): {q.needed} vCPU needed for {q.instance_type}, "
        + ("how many are held AWS did not say" if q.held is None else f"{q.held} held")
        for q in largest.values()
    ]


def question(offer: Offer, nodes: str, forecast: Forecast | None = None) -> str:
    """Return the question the prompt asks: `Launch 16 x p3.16xlarge for about $41.20?`."""
    if forecast is not None:
        low, high = (format_usd(amount) for amount in forecast.cost)
        return f"Launch {nodes} x {offer.instance_type} for {low} to {high}?"
    about = "about" if offer.hours is not None else "at most"
    return f"Launch {nodes} x {offer.instance_type} for {about} {format_usd(offer.cost)}?"
