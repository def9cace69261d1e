"""`orch schedule` (hidden): what `launch` and `resume` start in tmux; schedules one run to its end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import Place, open_home, open_place
from orchestrator.cli.options import CLOUDS

if TYPE_CHECKING:
    from orchestrator.run.home import Home


@click.command(hidden=True)
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
        _write_page(place, home, run)


def _log(line: str) -> None:
    click.echo(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}  {line}")


def _write_page(place: Place, home: Home, run_id: str) -> None:
    from orchestrator.core.ids import Keys
    from orchestrator.report.html import render_page
    from orchestrator.run import prices
    from orchestrator.run.read import read_run

    view = read_run(place.session, place.bucket, run_id, history=True)
    page = render_page(view, prices.load(place.bucket, run_id))
    place.bucket.put(Keys(run_id).report_html, page.encode(), content_type="text/html; charset=utf-8")
    home.save_report(view.report(), page)
