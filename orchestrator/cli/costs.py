"""The part of `orch cost` that looks at all runs: which ones, read from every cloud in reach or from kept reports."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args

import click

from orchestrator.cli.context import in_reach, wanted
from orchestrator.cli.runs import launched, name_of
from orchestrator.core.totals import By, RunBill, add_up, whole_of
from orchestrator.core.units import parse_duration
from orchestrator.errors import BadInput, OrchError

if TYPE_CHECKING:
    from orchestrator.cli.context import Place
    from orchestrator.run.home import Home

READERS = 8
GROUPS: tuple[str, ...] = get_args(By)


def parse_since(text: str) -> timedelta:
    """Return what `--since` means. Raises BadInput."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise BadInput(f"--since: {error}", "for example --since 30d") from error


def show_totals(home: Home, cloud: str | None, since: str, by: By, *, as_json: bool, as_csv: bool) -> None:
    """Print what the runs launched in the last `since` cost, grouped `by`; runs that cannot be read are named."""
    after = datetime.now(UTC) - parse_since(since)
    runs, errors = _collect(home, cloud, after)
    totals = add_up(runs, by)
    if as_json:
        from orchestrator.report.json import dumps

        sums = {"groups": [total.to_json() for total in totals], "total": whole_of(totals).to_json()}
        click.echo(dumps({"since": since, "by": by, **sums, "left_out": errors}))
    elif as_csv:
        from orchestrator.report.costs import totals_csv

        click.echo(totals_csv(totals, by), nl=False)
    elif not totals:
        click.echo(f"no run of the last {since} cost anything")
    else:
        from orchestrator.report.console import make_console
        from orchestrator.report.costs import totals_table

        make_console().print(totals_table(totals, by))
    for line in errors:
        click.echo(f"left out: {line}", err=True)


def _collect(home: Home, cloud: str | None, after: datetime) -> tuple[list[RunBill], list[str]]:
    """Return the bills of the runs launched after a moment, and in one line each what could not be read."""
    from orchestrator.run.read import list_runs

    places, unopened = in_reach(home, cloud)
    errors = [error.message for error in unopened]
    found: dict[str, Place | None] = {}
    for place in places:
        try:
            found |= dict.fromkeys(list_runs(place.bucket), place)
        except OrchError as error:
            errors.append(error.message)
    flag = wanted(home, cloud)
    found |= {run.run_id: None for run in home.runs if run.run_id not in found and flag in {None, run.cloud}}
    if unopened and not found:
        raise unopened[0]
    recent = [item for item in found.items() if _began(item[0]) >= after]
    with ThreadPoolExecutor(READERS) as pool:
        read = list(pool.map(lambda item: _read(home, *item), recent))
    return [run for run in read if isinstance(run, RunBill)], errors + [line for line in read if isinstance(line, str)]


def _read(home: Home, run_id: str, place: Place | None) -> RunBill | str:
    """Return the bill of a run, from its cloud or the report kept here; else why there is none."""
    from orchestrator.run.read import read_run

    reason = "its cloud is out of reach, and no report of it is kept here"
    if place is not None:
        try:
            view = read_run(place.session, place.bucket, run_id)
        except OrchError as error:
            reason = error.message
        else:
            return RunBill(run_id, view.spec.name, view.spec.identity.user, view.bill.to_json())
    kept = home.load_report(run_id)
    return f"{run_id}: {reason}" if kept is None else RunBill(run_id, name_of(run_id), "", kept["bill"])


def _began(run_id: str) -> datetime:
    return datetime.strptime(launched(run_id)[1:16], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
