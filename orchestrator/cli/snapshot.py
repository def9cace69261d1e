"""`orch dataset snapshot`: the EBS snapshot of a data set, which gives every node of a run a volume with the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import open_for_launch, open_home, wanted
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, json_option, need_yes, read_caps, yes_option
from orchestrator.core.units import counted
from orchestrator.errors import BadInput, Exit, OrchError

if TYPE_CHECKING:
    from orchestrator.cli.context import Place
    from orchestrator.core.volumes import Snapshot
    from orchestrator.run.datasets import Dataset
    from orchestrator.run.home import Home
    from orchestrator.run.prepare import Prepared


@click.command(cls=AllFaults, name="snapshot")
@click.argument("name", metavar="NAME[@VERSION]")
@click.option("--instance-type", "types", multiple=True, metavar="TYPE", help="Of the builder; may be repeated.")
@click.option("--force", is_flag=True, help="Make one even when this version has one; that goes, unless in use.")
@click.option("--max-cost", metavar="DOLLARS", help="End the run before it costs more; then there is no snapshot.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done and cost; change nothing.")
@yes_option
@cloud_option
@json_option
def command(
    *,
    name: str,
    types: tuple[str, ...],
    force: bool,
    max_cost: str | None,
    dry_run: bool,
    yes: bool,
    cloud: str | None,
    as_json: bool,
) -> int:
    """Make the EBS snapshot of a data set, for `mode: ebs`, on a cheap spot machine that fills a volume.

    Every file is read back from the volume and checked by its digest before the snapshot is taken. A version that has a
    snapshot is not built again. When something fails nothing is published and nothing is left.
    """
    from orchestrator.report.plan import question
    from orchestrator.run.datasets import find
    from orchestrator.run.prepare import Source
    from orchestrator.run.snapshots import TYPES, look_up, plan_build

    caps, faults = read_caps(max_cost, None)
    faults = [f"--{fault.replace('_', '-', 1)}" for fault in faults] + _faults_of(name, types)
    if faults:
        raise BadInput(
            f"no snapshot of {name}: {counted(len(faults), 'fault')}", "nothing was made", details=tuple(faults)
        )
    home = open_home()
    place = open_for_launch(home, wanted(home, cloud), _progress)
    item = find(place.session, place.bucket, name)
    there = look_up(item, place.session)
    if there is not None and not force:
        return _tell(item, there, (), None, as_json=as_json)
    prepared = plan_build(
        item, Source(item.reference, None, place.cloud), place.session, place.settings, types or TYPES, caps.max_cost
    )
    if dry_run or not as_json:
        _show_plan(item, prepared, as_json=as_json)
    if dry_run:
        return Exit.DONE
    need_yes(
        question(prepared.plan.offers[0], prepared.experiment.nodes, prepared.plan.forecast(0)),
        yes=yes,
        what="a snapshot",
        hint="give -y, or --dry-run",
        declined="nothing was made",
        as_json=as_json,
    )
    return _build(item, prepared, place, home, as_json=as_json)


def _faults_of(name: str, types: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the name and the instance types, by the rules of data sets and experiment files."""
    from orchestrator.core.fields import Type, faults_of_each
    from orchestrator.run.datasets import parse

    faults = [f"--instance-type: {fault}" for fault in faults_of_each(Type, types)]
    try:
        parse(name)
    except BadInput as error:
        faults.append(error.message)
    return faults


def _show_plan(item: Dataset, prepared: Prepared, *, as_json: bool) -> None:
    from orchestrator.cli.experiment import Loaded
    from orchestrator.cli.plan import show

    if not as_json:
        click.echo(
            f"{item.reference}: a machine fetches it onto a volume and reads it back, then the snapshot is taken"
        )
    show(prepared, Loaded(prepared.experiment, prepared.source), as_json=as_json)


def _build(item: Dataset, prepared: Prepared, place: Place, home: Home, *, as_json: bool) -> int:
    from orchestrator.cli.outcome import TAIL_SHOWN, exit_code
    from orchestrator.run.snapshots import build_snapshot

    outcome = build_snapshot(item, prepared, place.session, home, _progress)
    if outcome.snapshot is None:
        raise OrchError(
            f"no snapshot was published: {outcome.verdict.message}",
            f"`orch logs {outcome.run}` has everything it said",
            exit_code=exit_code(outcome.verdict),
            details=outcome.verdict.details[-TAIL_SHOWN:],
        )
    return _tell(item, outcome.snapshot, outcome.removed, outcome.run, as_json=as_json)


def _tell(item: Dataset, made: Snapshot, removed: tuple[Snapshot, ...], run: str | None, *, as_json: bool) -> int:
    from orchestrator.core.units import format_usd
    from orchestrator.report.datasets import snapshot_json

    if as_json:
        from orchestrator.report.json import dumps

        ids = [old.snapshot_id for old in removed]
        value = {"built": run is not None, "snapshot": snapshot_json(made), "run": run, "removed": ids}
        click.echo(dumps(value))
        return Exit.DONE
    month = f"{format_usd(made.monthly)} a month"
    if run is None:
        click.echo(f"{item.reference} has {made.snapshot_id}, {month}; --force makes another")
    else:
        click.echo(f"{item.reference} has {made.snapshot_id}, {month}; `orch cost {run}` shows what making it cost")
    click.echo(f"an experiment uses it so: data: {{{item.name}: {{source: dataset:{item.name}, mode: ebs}}}}")
    return Exit.DONE


def _progress(line: str) -> None:
    from datetime import UTC, datetime

    click.echo(f"{datetime.now(UTC):%H:%M:%S}  {line}", err=True)
