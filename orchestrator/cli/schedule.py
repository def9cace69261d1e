"""`orch schedule` (hidden): what `launch` and `resume` start in tmux; schedules one run to its end."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from orchestrator.cli.context import open_home, open_place
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import CLOUDS
from orchestrator.cli.page import write_page


@click.command(cls=AllFaults, hidden=True)
@click.argument("run")
@click.option("--cloud", type=click.Choice(CLOUDS), required=True, help="The cloud the run is on.")
def command(run: str, cloud: str) -> None:
    """Schedule RUN (its whole id) until nothing of it is left, then write its page. Killing it is harmless."""
    from orchestrator.cli.config import notify_targets
    from orchestrator.run.loop import run_scheduler
    from orchestrator.run.notify import telling

    home = open_home()
    place = open_place(home, cloud)
    with telling(place.session, place.bucket, run, notify_targets(home.path), _log):
        run_scheduler(place.session, place.bucket, home, run, _log)
        write_page(place, home, run)


def _log(line: str) -> None:
    click.echo(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}  {line}")
