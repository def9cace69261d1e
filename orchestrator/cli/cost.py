"""`orch cost`: the bill of a run, from S3 alone, or from the report kept here when its cloud is gone."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.options import cloud_option, json_option, run_argument
from orchestrator.cli.runs import Found, find_run
from orchestrator.errors import OrchError


@click.command()
@run_argument
@cloud_option
@json_option
def command(*, run: str | None, cloud: str | None, as_json: bool) -> None:
    """Print what RUN (the newest where it is left out) cost, instance by instance, beside the on-demand price."""
    from orchestrator.report.json import dumps

    home = open_home()
    found = find_run(home, run, cloud)
    bill = _bill(found, home.load_report(found.run_id))
    if as_json:
        click.echo(dumps(bill))
        return
    from orchestrator.report.bill import show_bill
    from orchestrator.report.console import make_console

    show_bill(make_console(), bill)


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
