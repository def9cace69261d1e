"""`orch launch`: plan, ask, launch, watch to the end, bill."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from orchestrator.cli.experiment import experiment_faults
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import (
    cloud_option,
    experiment_argument,
    experiment_options,
    json_option,
    need_yes,
    yes_option,
)
from orchestrator.errors import Exit


@click.command(cls=AllFaults, check=experiment_faults)
@experiment_argument
@experiment_options
@cloud_option
@click.option("--dry-run", is_flag=True, help="Only show the plan; change nothing.")
@yes_option
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the run has its scheduler.")
@json_option
def command(
    *, experiment: str, cloud: str | None, dry_run: bool, yes: bool, detach: bool, as_json: bool, **given: Any
) -> int:
    """Launch EXPERIMENT: one that comes with orch (imagenet18), one in ./experiments, or a YAML file.

    Everything is checked first and all faults are told at once. Then the plan with its prices, a question, all nodes or
    none, and the live view until the run has ended and everything is terminated and billed. Ctrl-C leaves the view; the
    run goes on. The exit code says how the run ended (docs/exit-codes.md).
    """
    from orchestrator.cli.plan import prepare_run, show
    from orchestrator.report.plan import question

    home, place, loaded, prepared = prepare_run(experiment, cloud, given, quiet=as_json)
    if dry_run or not as_json:
        show(prepared, loaded, as_json=as_json)
    if dry_run:
        return Exit.DONE
    asked = question(prepared.plan.offers[0], prepared.experiment.nodes, prepared.plan.forecast(0))
    need_yes(
        asked,
        yes=yes,
        what="launching",
        hint="give -y, or --dry-run for the plan",
        declined="nothing was launched",
        as_json=as_json,
    )
    from orchestrator.run.detach import start_scheduler
    from orchestrator.run.prepare import begin

    spec = begin(prepared, place.session, home, name=None, now=datetime.now(UTC), on_progress=_progress)
    start_scheduler(home, spec.run_id, place.cloud)
    return _watch(place, spec.run_id, detach=detach, as_json=as_json)


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _watch(place: Any, run_id: str, *, detach: bool, as_json: bool) -> int:
    from orchestrator.cli.follow import Silent, follow
    from orchestrator.cli.outcome import conclude
    from orchestrator.report.json import dumps

    if detach:
        click.echo(dumps({"run_id": run_id, "cloud": place.cloud}) if as_json else useful_commands(run_id))
        return Exit.DONE
    if not as_json:
        click.echo(f"run {run_id}; Ctrl-C leaves this view, the run goes on")
    ended = follow(place, run_id, screen=Silent() if as_json else None)
    return conclude(ended, as_json=as_json)


def useful_commands(run_id: str) -> str:
    """Return what a user may want to do with a run that was just launched."""
    commands = {
        f"orch watch {run_id}": "the live view",
        f"orch attach {run_id} --node 0": "the training's own terminal",
        f"orch logs {run_id} --follow": "what all nodes print",
        f"orch stop {run_id}": "save, terminate, bill",
    }
    width = max(len(line) for line in commands)
    lines = [f"  {line:<{width}}  {what}" for line, what in commands.items()]
    return "\n".join([f"run {run_id} is on its way", *lines])
