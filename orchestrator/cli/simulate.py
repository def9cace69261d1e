"""`orch simulate`: what recovery policies would make of an experiment, in time and dollars, on recorded traces."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, experiment_argument, json_option
from orchestrator.cli.simulation import prepare_simulation, simulation_faults
from orchestrator.core.policies import NAMES

if TYPE_CHECKING:
    from orchestrator.run.simulate import Simulation

# SkyPilot's own measurement of provisioning a GPU node on AWS from a stock image: 2m27s (skypilot-org/skypilot#4091).
BOOT = "2m30s"
RESTART = "30s"


@click.command(cls=AllFaults, check=simulation_faults)
@experiment_argument
@click.option("-n", "--nodes", metavar="N", help="Number of nodes (num_nodes).")
@click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Set any key: --set expected_duration=6h.")
@click.option("--trace", "traces", metavar="[ZONE=]FILE", multiple=True, required=True,
              help="Nodes a zone had (JSON, or .gz), once for each zone; or a folder of such files.")  # fmt: skip
@click.option("--prices", metavar="FILE", help="Spot prices by zone (JSON, or .gz), dollars per node-hour.")
@click.option("--price-gap", metavar="TIME", help="Time between two prices; by default that of the traces.")
@click.option("--spot-price", "flat", metavar="[ZONE=]DOLLARS", multiple=True, help="A spot price that never changes.")
@click.option("--on-demand-price", metavar="DOLLARS", help="On-demand price of a node-hour.")
@click.option("--min-nodes", type=click.IntRange(min=1), metavar="N",
              help="Fewest nodes elastic policies train on; by default min_nodes, else half of them.")  # fmt: skip
@click.option("--efficiency", type=click.FloatRange(0, 2, min_open=True), default=1.0, show_default=True,
              metavar="E", help="m of n nodes train (m/n)^E times as fast.")  # fmt: skip
@click.option("--deadline", metavar="TIME", help="When the run should be done, from its start; adds the policy auto.")
@click.option(
    "--boot", metavar="TIME", default=BOOT, show_default=True, help="From launch to training, setup included."
)
@click.option("--restart", metavar="TIME", default=RESTART, show_default=True,
              help="From stopped to training again on machines that are up.")  # fmt: skip
@click.option("--checkpoint-every", metavar="TIME", default="60s", show_default=True, help="Between two checkpoints.")
@click.option("--notice", metavar="TIME", default="2m", show_default=True, help="From EC2's notice to the end.")
@click.option("--no-notice-share", type=click.FloatRange(0, 1), default=0.0, show_default=True, metavar="P",
              help="Share of interruptions that come without a notice.")  # fmt: skip
@click.option("--policy", "policies", type=click.Choice(NAMES), multiple=True, help="Only this policy.")
@click.option("--replays", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, metavar="N",
              help="How many starts are drawn.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Draws starts and missing notices.")
@click.option("--horizon", metavar="TIME", help="How long each replay is watched.")
@cloud_option
@json_option
def command(experiment: str, cloud: str | None, as_json: bool, **given: Any) -> None:
    """Replay EXPERIMENT on availability and price traces: time and cost of each recovery policy, with percentiles.

    A model, not the scheduler: docs/simulate.md says what it assumes. Without prices those of the plan are used, as
    `orch plan` reads them from the cloud.
    """
    from orchestrator.report.console import make_console
    from orchestrator.report.json import dumps
    from orchestrator.report.simulate import SimulationSheet, show_simulation, simulation_json
    from orchestrator.run.simulate import simulate

    wanted = prepare_simulation(experiment, cloud, given)
    kinds = {file.zone: file.kind for file in wanted.files}
    summaries = simulate(wanted.simulation, _progress)
    _progress("")
    notes = [*wanted.changes, *_notes(wanted.simulation)]
    sheet = SimulationSheet(wanted.name, wanted.simulation, summaries, kinds, wanted.prices, notes)
    if as_json:
        click.echo(dumps(simulation_json(sheet)))
    else:
        show_simulation(make_console(), sheet)


def _notes(simulation: Simulation) -> list[str]:
    """Return what a reader may miss in the table."""
    from orchestrator.core.units import format_duration

    notes = []
    needed = simulation.job.boot + simulation.job.work
    if simulation.deadline is None:
        notes.append("--deadline TIME adds auto: spot mixed with on-demand so that the run is done by then")
    elif simulation.deadline < needed:
        notes.append(f"the deadline is before on-demand could be done, {format_duration(needed)} after the start")
    if simulation.starts < min(simulation.replays, 100):
        notes.append(f"the traces leave room for {simulation.starts} different starts; a shorter --horizon for more")
    if needed > simulation.horizon:
        notes.append("the work is longer than each replay is watched, so none can finish: only USEFUL speaks")
    return notes


def _progress(line: str) -> None:
    """Rewrite one line on a terminal; pipes hear nothing."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{line}", err=True, nl=False)
