"""`orch watch`: come back to the live view of a run."""

from __future__ import annotations

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, json_option, run_argument
from orchestrator.cli.runs import find_run


@click.command(cls=AllFaults)
@run_argument
@cloud_option
@json_option
def command(*, run: str | None, cloud: str | None, as_json: bool) -> int:
    """Follow RUN (the newest where it is left out) until it ends, then print its bill; Ctrl-C only leaves the view.

    The exit code says how the run ended (docs/exit-codes.md). With --json every change is one line: the row of
    `orch status --json`, and at the end the whole report, a line too.
    """
    from orchestrator.cli.follow import JsonLines, follow
    from orchestrator.cli.outcome import conclude

    found = find_run(open_home(), run, cloud)
    view = follow(found.open(), found.run_id, screen=JsonLines() if as_json else None)
    return conclude(view, as_json=as_json, one_line=True)
