"""`orch gc`: what carries a run's tag and nobody looks after, on every cloud in reach; shown, then removed on a yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Place, in_reach, open_home
from orchestrator.cli.options import can_ask, cloud_option, json_option, yes_option
from orchestrator.errors import Exit, NoPermission, OrchError

if TYPE_CHECKING:
    from orchestrator.run.gc import Orphan

Lost = list[tuple[Place, "Orphan"]]


@click.command()
@click.option("--dry-run", is_flag=True, help="Only list; remove nothing and do not ask.")
@yes_option
@cloud_option
@json_option
def command(*, dry_run: bool, yes: bool, cloud: str | None, as_json: bool) -> int:
    """List what carries the tag of a run but has nobody who looks after it, then remove it on a yes.

    The cloud is asked, not this machine's memory: instances, volumes, key pairs, security and placement groups. Ends
    with 0 when nothing is left, with 9 when something is. With --json it lists, and removes only with -y.
    """
    places, errors = in_reach(open_home(), cloud)
    if not places:
        raise errors[0] if errors else NoPermission("no cloud is in reach", "`orch doctor` says what is missing")
    found = _find(places)
    if not as_json:
        _show(found)
    for error in errors:
        click.echo(f"left out: {error.message} ({error.hint})", err=True)
    left = found
    if found and not dry_run and _confirmed(found, yes=yes, as_json=as_json):
        left = _remove(found, quiet=as_json)
    if as_json:
        _print_json(found, left)
    if not left:
        return Exit.DONE
    if not as_json:
        raise OrchError(f"{_things(left)} left behind", "`orch gc -y` removes them", exit_code=Exit.LEFT_BEHIND)
    return Exit.LEFT_BEHIND


def _find(places: Sequence[Place]) -> Lost:
    from orchestrator.run.gc import find_orphans

    return [(place, item) for place in places for item in find_orphans(place.session, place.bucket)]


def _confirmed(found: Lost, *, yes: bool, as_json: bool) -> bool:
    if yes or as_json or not can_ask():
        return yes
    return click.confirm(f"Remove {_things(found)}?", default=False)


def _things(items: Lost) -> str:
    return f"{len(items)} thing{'s' * (len(items) != 1)}"


def _show(found: Lost) -> None:
    if not found:
        click.echo("nothing was left behind")
    for place, item in found:
        click.echo(f"{item.kind:<18} {item.id:<24} {item.run}  {item.why}  [{place.cloud}]")


def _remove(found: Lost, *, quiet: bool) -> Lost:
    """Remove them, cloud by cloud, and return those that are still there."""
    from orchestrator.run.gc import remove

    left: Lost = []
    for place in {id(place): place for place, _ in found}.values():
        items = [item for where, item in found if where is place]
        say = _silence if quiet else click.echo
        left += [(place, item) for item in remove(place.session, items, say)]
    return left


def _silence(line: str) -> None:
    """Say nothing: stdout is for the JSON."""


def _print_json(found: Lost, left: Lost) -> None:
    from orchestrator.report.json import dumps

    def rows(items: Lost) -> list[dict[str, Any]]:
        return [item.to_json() | {"cloud": place.cloud} for place, item in items]

    removed = [pair for pair in found if pair not in left]
    click.echo(dumps({"orphans": rows(left), "removed": rows(removed)}))
