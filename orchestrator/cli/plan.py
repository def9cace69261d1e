"""`orch plan`: what `orch launch` would do and cost, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import open_for_launch, open_home, seed_data, wanted
from orchestrator.cli.experiment import experiment_faults
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, experiment_argument, experiment_options, json_option

if TYPE_CHECKING:
    from orchestrator.cli.context import Place
    from orchestrator.cli.experiment import Loaded
    from orchestrator.run.home import Home
    from orchestrator.run.prepare import Prepared


@click.command(cls=AllFaults, check=experiment_faults)
@experiment_argument
@experiment_options
@cloud_option
@json_option
def command(experiment: str, cloud: str | None, as_json: bool, **given: Any) -> None:
    """Check EXPERIMENT (a name or a YAML file) and show where it would run, for how long, and what it would cost.

    The same as `orch launch --dry-run`. With `--cloud sandbox` the sandbox is started when it is not up.
    """
    home, place, loaded, prepared = prepare_run(experiment, cloud, given, quiet=as_json)
    del home, place
    show(prepared, loaded, as_json=as_json)


def prepare_run(
    experiment: str, cloud: str | None, given: dict[str, Any], *, quiet: bool
) -> tuple[Home, Place, Loaded, Prepared]:
    """Check an experiment and plan it; nothing is called before the file is known to be right.

    Raises BadInput with every fault of the file, then what opening the cloud and planning raise.
    """
    from orchestrator.cli.experiment import load_experiment
    from orchestrator.run.prepare import prepare

    def progress(line: str) -> None:
        click.echo(line, err=True)

    home = open_home()
    name = wanted(home, cloud)
    loaded = load_experiment(experiment, name, given, environ=os.environ)
    if not quiet:
        for change in loaded.changes:
            click.echo(change)
    place = open_for_launch(home, name, progress)
    seed_data(home, place, loaded.experiment, progress)
    prepared = prepare(loaded.experiment, loaded.source, place.session, place.settings, environ=os.environ, home=home)
    return home, place, loaded, prepared


def show(prepared: Prepared, loaded: Loaded, *, as_json: bool) -> None:
    """Print a plan."""
    if as_json:
        from orchestrator.report.json import dumps
        from orchestrator.report.plan import offer_json

        offers = [offer_json(offer, prepared.plan.forecast(i)) for i, offer in enumerate(prepared.plan.offers)]
        click.echo(dumps(prepared.to_json() | {"offers": offers, "changes": list(loaded.changes)}))
        return
    from orchestrator.report.console import make_console
    from orchestrator.report.plan import PlanSheet, show_plan

    experiment = prepared.experiment
    where = f"{prepared.settings.cloud}, {prepared.settings.region}"
    title = f"{experiment.name}: {experiment.how_many('node')} on {where}"
    data = [str(choice) for choice in prepared.choices]
    sheet = PlanSheet(title, prepared.plan, experiment.max_duration, prepared.will_create, prepared.notes, data)
    show_plan(make_console(), sheet)
