"""`orch gc`: what carries a run's tag and nobody looks after, on every cloud in reach; shown, then removed on a yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Place, in_reach, in_regions, open_home
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import can_ask, cloud_option, json_option, yes_option
from orchestrator.core.units import counted
from orchestrator.errors import BadInput, Exit, NoPermission, OrchError

if TYPE_CHECKING:
    from orchestrator.run.gc import Orphan

Lost = list[tuple[Place, "Orphan"]]


@click.command(cls=AllFaults)
@click.option("--dry-run", is_flag=True, help="Only list; remove nothing and do not ask.")
@yes_option
@click.option("--region", "regions", multiple=True, metavar="REGION", help="Look there; may be repeated.")
@click.option("--all-regions", is_flag=True, help="Look in every region the account can use.")
@cloud_option
@json_option
def command(
    *, dry_run: bool, yes: bool, regions: tuple[str, ...], all_regions: bool, cloud: str | None, as_json: bool
) -> int:
    """List what carries the tag of a run but has nobody who looks after it, then remove it on a yes.

    The cloud is asked, not this machine's memory, for every kind of thing that a run can leave. Ends with 0 when
    nothing is left, with 9 when something is. With --json it lists, and removes only with -y.
    """
    if regions and all_regions:
        raise BadInput("--region and --all-regions exclude each other", "give one of them")
    places, errors = in_reach(open_home(), cloud)
    if not places:
        raise errors[0] if errors else NoPermission("no cloud is in reach", "`orch doctor` says what is missing")
    found = _find(_spread(places, regions, errors, everywhere=all_regions), errors)
    if not as_json:
        _show(found)
    left = found
    if found and not dry_run and _confirmed(found, yes=yes, as_json=as_json):
        left = _remove(found, errors, quiet=as_json)
    for error in errors:
        click.echo(f"left out: {error.message} ({error.hint})", err=True)
    if as_json:
        _print_json(found, left, errors)
    if left and not as_json:
        raise OrchError(f"{_things(left)} left behind", "`orch gc -y` removes them", exit_code=Exit.LEFT_BEHIND)
    return Exit.LEFT_BEHIND if left else errors[0].exit_code if errors else Exit.DONE


def _spread(
    places: Sequence[Place], regions: tuple[str, ...], errors: list[OrchError], *, everywhere: bool
) -> list[Place]:
    """Return the clouds in the regions asked for, in their own where none is; adds to `errors`."""
    if not regions and not everywhere:
        return list(places)
    from orchestrator.aws.ec2 import Compute

    spread: list[Place] = []
    for place in places:
        try:
            spread += in_regions(
                place, Compute(place.session).regions() if everywhere else list(dict.fromkeys(regions))
            )
        except OrchError as error:
            errors.append(error)
    return spread


def _find(places: Sequence[Place], errors: list[OrchError]) -> Lost:
    """Return what was left behind; where that cannot be seen is added to `errors`."""
    from orchestrator.run.gc import find_orphans

    found: Lost = []
    for place in places:
        try:
            found += [(place, item) for item in find_orphans(place.session, place.bucket)]
        except OrchError as error:
            errors.append(_in_place(error, place))
    return found


def _in_place(error: OrchError, place: Place) -> OrchError:
    where = f"{place.cloud}, {place.settings.region}"
    return OrchError(f"{where}: {error.message}", error.hint, exit_code=error.exit_code)


def _confirmed(found: Lost, *, yes: bool, as_json: bool) -> bool:
    if yes or as_json or not can_ask():
        return yes
    return click.confirm(f"Remove {_things(found)}?", default=False)


def _things(items: Lost) -> str:
    return counted(len(items), "thing")


def _show(found: Lost) -> None:
    if not found:
        click.echo("nothing was left behind")
    for place, item in found:
        click.echo(f"{item.kind:<18} {item.id:<24} {item.run}  {item.why}  [{place.cloud} {place.settings.region}]")


def _remove(found: Lost, errors: list[OrchError], *, quiet: bool) -> Lost:
    """Remove them, place by place, and return those that are still there; adds to `errors`."""
    from orchestrator.run.gc import remove

    left: Lost = []
    for place in {id(place): place for place, _ in found}.values():
        items = [item for where, item in found if where is place]
        say = _silence if quiet else click.echo
        try:
            left += [(place, item) for item in remove(place.session, place.bucket, items, say)]
        except OrchError as error:
            errors.append(_in_place(error, place))
            left += [(place, item) for item in items]
    return left


def _silence(line: str) -> None:
    """Say nothing: stdout is for the JSON."""


def _print_json(found: Lost, left: Lost, errors: Sequence[OrchError]) -> None:
    from orchestrator.report.json import dumps

    def rows(items: Lost) -> list[dict[str, Any]]:
        return [item.to_json() | {"cloud": place.cloud} for place, item in items]

    removed = [pair for pair in found if pair not in left]
    value = {"orphans": rows(left), "removed": rows(removed), "left_out": [error.message for error in errors]}
    click.echo(dumps(value))
