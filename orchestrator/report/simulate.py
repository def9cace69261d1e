"""The outcome of `orch simulate` as a table and as JSON: one row for each policy, and zone where it stays in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.core.outcomes import Summary
from orchestrator.core.units import counted, format_duration, format_usd, usd
from orchestrator.report.text import clean
from orchestrator.run.simulate import Simulation

COLUMNS = (
    "", "POLICY", "ZONE", "IN TIME", "TIME P50", "P90", "P99", "COST P50", "P90", "SAVING", "TAKEN", "STARTS", "LOST",
    "USEFUL",
)  # fmt: skip
LEFT = 3
WIDE = 130
# What a narrow terminal does without: P99, P90 of the cost, STARTS.
DISPENSABLE = frozenset({6, 8, 11})
NEVER = "-"


@dataclass(frozen=True, slots=True)
class SimulationSheet:
    """What the summaries are shown with: `kinds` of the traces by zone, `prices` says where they are from."""

    name: str
    simulation: Simulation
    summaries: Sequence[Summary]
    kinds: dict[str, str]
    prices: str
    notes: Sequence[str] = ()


def show_simulation(console: Console, sheet: SimulationSheet) -> None:
    """Print the table with what it was made from."""
    job = sheet.simulation.job
    console.print(
        Text(f"{clean(sheet.name)}: {counted(job.nodes, 'node')}, {_time(job.work)} at full strength", style="bold")
    )
    console.print(_table(sheet.summaries, console.width))
    for line in _lines(sheet):
        console.print(f"  {clean(line)}")
    for note in sheet.notes:
        console.print(Text(f"  note     {clean(note)}", style="yellow"))


def _lines(sheet: SimulationSheet) -> list[str]:
    """Return how to read the table, and what it was made from."""
    simulation, job, traces = sheet.simulation, sheet.simulation.job, sheet.simulation.traces
    by = f"by the deadline of {_time(simulation.deadline)}" if simulation.deadline else "while watched"
    count = counted(len(traces.zones), "zone")
    zones = ", ".join(f"{zone} ({kind})" if kind else zone for zone, kind in sheet.kinds.items())
    assumed = (
        f"boot {_time(job.boot)}, restart {_time(job.restart)}, a checkpoint each {_time(job.checkpoint_every)}, "
        f"notice {_time(job.notice)}, none in {100 * job.unannounced:.0f}% of interruptions"
    )
    return [
        f"IN TIME: done {by}; {NEVER}: too many were not done while watched; ✔: the best zone for a policy of one zone",
        "TAKEN: interruptions, STARTS: of training, LOST: work done twice (means of a replay); USEFUL: work over time",
        f"replays  {simulation.replays}, seed {simulation.seed}, each watched for {_time(simulation.horizon)}",
        f"traces   {count}, {_time(traces.seconds)}, a sample each {_time(traces.gap)}: {zones}",
        f"prices   {sheet.prices}; on-demand costs {format_usd(simulation.on_demand_cost)}",
        f"assumes  {assumed}",
    ]


def _table(summaries: Sequence[Summary], width: int) -> Table:
    shown = [index for index in range(len(COLUMNS)) if width >= WIDE or index not in DISPENSABLE]
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for index in shown:
        table.add_column(COLUMNS[index], no_wrap=True, justify="left" if index < LEFT else "right")
    for item in summaries:
        cells = _cells(item)
        table.add_row(*(cells[index] for index in shown), style="" if item.best_zone or item.zone is None else "dim")
    return table


def _cells(item: Summary) -> list[str]:
    return [
        "✔" if item.best_zone else " ",
        item.policy,
        clean(item.zone or "any" if item.policy != "on-demand" else ""),
        f"{100 * item.in_time:.1f}%",
        *(NEVER if seconds is None else _time(seconds) for seconds in item.seconds),
        *(NEVER if amount is None else format_usd(amount) for amount in item.cost),
        NEVER if item.saving is None else f"{100 * item.saving:.1f}%",
        f"{item.interruptions:.1f}",
        f"{item.starts:.1f}",
        _time(item.lost),
        f"{100 * item.useful:.1f}%",
    ]


def simulation_json(sheet: SimulationSheet) -> dict[str, Any]:
    """Return the documented JSON form: times in seconds, dollars as strings with six places."""
    simulation, job = sheet.simulation, sheet.simulation.job
    return {
        "name": sheet.name,
        "job": {
            "num_nodes": job.nodes,
            "min_nodes": simulation.least,
            "work_seconds": job.work,
            "boot_seconds": job.boot,
            "restart_seconds": job.restart,
            "checkpoint_every_seconds": job.checkpoint_every,
            "notice_seconds": job.notice,
            "no_notice_share": job.unannounced,
            "efficiency": job.efficiency,
        },
        "traces": {
            "gap_seconds": simulation.traces.gap,
            "seconds": simulation.traces.seconds,
            "zones": [{"zone": zone, "kind": kind} for zone, kind in sheet.kinds.items()],
        },
        "prices": {"source": sheet.prices, "on_demand_price_usd": usd(simulation.prices.on_demand)},
        "replays": simulation.replays,
        "seed": simulation.seed,
        "horizon_seconds": simulation.horizon,
        "deadline_seconds": simulation.deadline,
        "on_demand_cost_usd": usd(simulation.on_demand_cost),
        "policies": [item.to_json() for item in sheet.summaries],
        "notes": list(sheet.notes),
    }


def _time(seconds: float) -> str:
    return format_duration(seconds)
