"""`orch stop`: ask a run to save and end, and wait until nothing of it is left."""

from __future__ import annotations

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, json_option, run_argument
from orchestrator.cli.runs import find_run
from orchestrator.cli.scheduling import ensure_scheduler, who


@click.command(cls=AllFaults)
@run_argument
@cloud_option
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the end.")
@click.option("--reason", default="stopped by the user", show_default=True, help="Kept with the run.")
@json_option
def command(*, run: str | None, cloud: str | None, detach: bool, reason: str, as_json: bool) -> int:
    """Stop RUN (the newest where it is left out): it saves a checkpoint, every node is terminated, the bill follows.

    Ends with 0 once the run is stopped; `orch resume` goes on from the checkpoint.
    """
    from orchestrator.cli.follow import Silent, follow
    from orchestrator.cli.outcome import conclude
    from orchestrator.report.json import dumps
    from orchestrator.report.text import clean
    from orchestrator.run.wish import ask_stop

    home = open_home()
    found = find_run(home, run, cloud)
    place = found.open()
    view = found.read()
    if view.ended:
        if as_json:
            click.echo(dumps(view.report()))
        else:
            click.echo(f"{found.run_id} has already ended: {view.phase}")
        return 0
    if not as_json:
        click.echo(f"stopping {found.run_id}: the training saves a checkpoint, then every node is terminated")
    ask_stop(place.bucket, found.run_id, who(), clean(reason) or "stopped by the user")
    ensure_scheduler(place, view)
    if detach:
        click.echo(
            dumps(found.read().summary()) if as_json else f"`orch watch {found.run_id}` shows the end and the bill"
        )
        return 0
    ended = follow(place, found.run_id, screen=Silent() if as_json else None, starting=True)
    return conclude(ended, as_json=as_json, stop_is_done=True)
