"""`orch status`: every run of every cloud in reach, and those whose cloud is gone but whose report was kept here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Place, in_reach, open_home, wanted
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, json_option, run_argument
from orchestrator.cli.runs import choose, find_run, launched, name_of
from orchestrator.errors import OrchError

if TYPE_CHECKING:
    from orchestrator.run.home import CachedRun, Home

READERS = 8
DEFAULT_LIMIT = 20


@click.command(cls=AllFaults)
@run_argument
@cloud_option
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Newest runs to list; 0 is all.",
)
@click.option(
    "--timing", is_flag=True, help="From the launch to the first step of RUN, node by node and stage by stage."
)
@json_option
def command(*, run: str | None, cloud: str | None, limit: int, timing: bool, as_json: bool) -> None:
    """List runs, the newest first; with RUN only that one.

    Runs of every cloud in reach are listed, and those launched from here whose cloud is gone, from the reports kept.
    With --timing: where the time of one run (the newest, where RUN is left out) until its first step went.
    """
    if timing:
        _show_timing(run, cloud, as_json=as_json)
        return
    from datetime import UTC, datetime

    from orchestrator.report.json import dumps

    home = open_home()
    places, errors = in_reach(home, cloud)
    rows = collect(home, places, errors, only=run, flag=wanted(home, cloud), limit=limit)
    if not rows and errors:
        raise errors[0]
    if as_json:
        click.echo(dumps(rows))
    elif not rows:
        click.echo("no runs yet; `orch launch --cloud sandbox imagenet18` makes one for nothing")
    else:
        from orchestrator.report.console import make_console
        from orchestrator.report.status import WIDE, status_table

        console = make_console()
        console.print(status_table(rows, datetime.now(UTC), console.width))
        for row in (row for row in rows if row.get("unattended") and console.width < WIDE):
            console.print(f"{row['run_id']}: {row['message']}", style="yellow", soft_wrap=True)
    for error in errors:
        click.echo(f"left out: {error.message} ({error.hint})", err=True)


def _show_timing(run: str | None, cloud: str | None, *, as_json: bool) -> None:
    from orchestrator.report.json import dumps

    home = open_home()
    found = find_run(home, run, cloud)
    report = home.load_report(found.run_id) if found.place is None else None
    rows = report.get("timing", []) if report is not None else [item.to_json() for item in found.read().starts]
    if as_json:
        click.echo(dumps(rows))
    elif not rows:
        click.echo(f"no node of {found.run_id} has told how it started yet")
    else:
        from orchestrator.report.console import make_console
        from orchestrator.report.timing import NOTE, timing_table

        console = make_console()
        console.print(timing_table(rows))
        console.print(NOTE, style="dim")


def collect(
    home: Home, places: list[Place], errors: list[OrchError], *, only: str | None, flag: str | None, limit: int
) -> list[dict[str, Any]]:
    """Return the rows of `orch status --json`; a cloud that cannot be listed is added to `errors`."""
    from orchestrator.run.read import list_runs

    found: dict[str, Place] = {}
    for place in places:
        try:
            found |= dict.fromkeys(list_runs(place.bucket), place)
        except OrchError as error:
            errors.append(error)
    kept = {run.run_id: run for run in home.runs if run.run_id not in found and flag in {None, run.cloud}}
    ids = sorted([*found, *kept], key=launched, reverse=True)
    if only is not None:
        ids = [choose(only, ids)]
    ids = ids[: limit or None]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda run_id: _row(home, run_id, found.get(run_id), kept.get(run_id)), ids))


def _row(home: Home, run_id: str, place: Place | None, kept: CachedRun | None) -> dict[str, Any]:
    from orchestrator.run.read import read_run

    if place is None:
        return _kept_row(home, run_id, kept)
    try:
        return read_run(place.session, place.bucket, run_id).summary()
    except OrchError as error:
        return _unknown(run_id, place.cloud, error.message)


def _kept_row(home: Home, run_id: str, kept: CachedRun | None) -> dict[str, Any]:
    report = home.load_report(run_id)
    if report is None:
        return _unknown(run_id, kept.cloud if kept else "", "its cloud is out of reach")
    return {
        key: value
        for key, value in report.items()
        if key not in {"work", "verdict", "instances", "preflight", "cap_changes", "timing", "bill"}
    }


def _unknown(run_id: str, cloud: str, message: str) -> dict[str, Any]:
    """Return the row of a run of which nothing but its id is known; dollars are null, never 0."""
    from datetime import UTC, datetime

    from orchestrator.core.units import iso

    begun = datetime.strptime(launched(run_id)[1:16], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    return {
        "run_id": run_id,
        "name": name_of(run_id),
        "phase": "unknown",
        "num_nodes": None,
        "min_nodes": None,
        "started": iso(begun),
        "ended": None,
        "spot_usd": None,
        "on_demand_usd": None,
        "metrics": {},
        "cloud": cloud,
        "generation": None,
        "unattended": False,
        "message": message,
    }
