"""`orch cost`: the bill of a run, from S3 or the report kept here when its cloud is gone; or what all runs cost."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.costs import GROUPS, show_totals
from orchestrator.cli.options import cloud_option, json_option, run_argument
from orchestrator.cli.runs import Found, find_run
from orchestrator.core.totals import By
from orchestrator.errors import BadInput, OrchError


@click.command()
@run_argument
@cloud_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a line for each instance-hour, or each group.")
@click.option("--since", metavar="TIME", help="All runs launched within this time (30d, 12h) instead of one.")
@click.option("--by", type=click.Choice(GROUPS), help="What --since groups by; by default name.")
def command(
    *, run: str | None, cloud: str | None, as_json: bool, as_csv: bool, since: str | None, by: By | None
) -> None:
    """Print what RUN (the newest where it is left out) cost, instance by instance, beside the on-demand price.

    With --since what all runs cost, added up by name, user, zone or type.
    """
    from orchestrator.report.json import dumps

    home = open_home()
    if _all_runs(run, since, by, as_json=as_json, as_csv=as_csv):
        show_totals(home, cloud, since or "30d", by or "name", as_json=as_json, as_csv=as_csv)
        return
    found = find_run(home, run, cloud)
    bill = _bill(found, home.load_report(found.run_id))
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


def _all_runs(run: str | None, since: str | None, by: str | None, *, as_json: bool, as_csv: bool) -> bool:
    """Tell whether all runs are meant. Raises BadInput for options that do not go together."""
    faults = []
    if as_json and as_csv:
        faults.append("--json and --csv are two forms of the same")
    if run is not None and (since or by):
        faults.append(f"--since and --by are for all runs, not for {run}")
    if faults:
        raise BadInput("; ".join(faults), "leave one of them out")
    return bool(since or by)


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
