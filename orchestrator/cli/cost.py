"""`orch cost`: the bill of a run, from S3 or the report kept here when its cloud is gone; or what all runs cost."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.costs import GROUPS, show_totals
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, json_option, run_argument
from orchestrator.cli.runs import Found, find_run
from orchestrator.core.totals import By
from orchestrator.errors import BadInput, OrchError

CONFIGURED = "\0"


@click.command(cls=AllFaults)
@run_argument
@cloud_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a line for each instance-hour, or each group.")
@click.option("--since", metavar="TIME", help="All runs launched within this time (30d, 12h) instead of one.")
@click.option("--by", type=click.Choice(GROUPS), help="What --since groups by; by default name.")
@click.option(
    "--reconcile",
    "where",
    is_flag=False,
    flag_value=CONFIGURED,
    metavar="[FILE]",
    help="Hold the bill against AWS's own: a spot data feed file, a CUR 2.0 export, a folder or s3://bucket/prefix of"
    " either; without FILE what `billing` in config.yaml names.",
)
def command(
    *,
    run: str | None,
    cloud: str | None,
    as_json: bool,
    as_csv: bool,
    since: str | None,
    by: By | None,
    where: str | None,
) -> None:
    """Print what RUN (the newest where it is left out) cost, instance by instance, beside the on-demand price.

    With --since what all runs cost, added up by name, user, zone or type.
    """
    from orchestrator.report.json import dumps

    home = open_home()
    if _all_runs(run, since, by, where, as_json=as_json, as_csv=as_csv):
        show_totals(home, cloud, since or "30d", by or "name", as_json=as_json, as_csv=as_csv)
        return
    found = find_run(home, run, cloud)
    kept = home.load_report(found.run_id)
    bill = _bill(found, kept) if where is None else _reconciled(found, where)
    if kept is not None and where is not None:
        home.save_report(kept | {"bill": bill})
    if as_json:
        click.echo(dumps(bill))
        return
    if as_csv:
        from orchestrator.report.costs import bill_csv

        click.echo(bill_csv(bill), nl=False)
        return
    from orchestrator.report.bill import show_bill
    from orchestrator.report.console import make_console

    show_bill(make_console(), bill)


def _all_runs(
    run: str | None, since: str | None, by: str | None, where: str | None, *, as_json: bool, as_csv: bool
) -> bool:
    """Tell whether all runs are meant. Raises BadInput for options that do not go together."""
    faults = []
    if as_json and as_csv:
        faults.append("--json and --csv are two forms of the same")
    if run is not None and (since or by):
        faults.append(f"--since and --by are for all runs, not for {run}")
    if where is not None and (since or by):
        faults.append("--reconcile is for one run, --since and --by for all")
    if faults:
        raise BadInput("; ".join(faults), "leave one of them out")
    return bool(since or by)


def _reconciled(found: Found, where: str) -> dict[str, Any]:
    """Return the bill held against AWS's files, which is kept with the run. Raises BadInput, NotFound."""
    from orchestrator.run.reconcile import reconcile_run

    place = found.open()
    source = place.settings.billing if where == CONFIGURED else where
    if source is None:
        raise BadInput("--reconcile has no file", "give one, or set `billing: s3://bucket/prefix` in config.yaml")
    return reconcile_run(place.session, place.bucket, found.read().bill, source).to_json()


def _bill(found: Found, kept: dict[str, Any] | None) -> dict[str, Any]:
    """Return the bill as S3 gives it; when that cannot be read, the kept one. Raises what made reading fail."""
    try:
        return found.read().bill.to_json()
    except OrchError as error:
        if kept is None:
            raise
        click.echo(f"from the report kept on this machine: {error.message}", err=True)
        bill: dict[str, Any] = kept["bill"]
        return bill
