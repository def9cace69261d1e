"""`orch dataset`: data sets in S3: build, list, show, stage, remove."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import snapshot
from orchestrator.cli.context import (
    GET_CLOUD,
    NO_CREDENTIALS,
    NoCredentials,
    in_reach,
    open_for_launch,
    open_home,
    wanted,
)
from orchestrator.cli.dataset_progress import shown, tell_built
from orchestrator.cli.dataset_run import build_on_nodes, run_faults, run_options, take_run_options
from orchestrator.cli.faults import Commands, lines_of, refuse_all
from orchestrator.cli.options import can_ask, cloud_option, json_option, yes_option
from orchestrator.core.ids import NAME_RULE, is_name
from orchestrator.core.units import counted
from orchestrator.errors import BadInput, Exit

if TYPE_CHECKING:
    from orchestrator.cli.context import Place
    from orchestrator.core.volumes import Snapshot
    from orchestrator.datasets.order import Order
    from orchestrator.run.datasets import Dataset

NAME = "NAME[@VERSION]"
# The options of `build` that are those of the trainer's `pack`.
TRAINERS = frozenset({"sizes", "val_labels", "quality", "processes", "max_corrupt"})


def _sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse now what the trainer would refuse after hours of fetching."""
    if value is None or value == "none" or re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", value):
        return value
    raise click.BadParameter(f"{value!r} is neither pixels, such as 160,352, nor none")


@click.group(cls=Commands, name="dataset")
def command() -> None:
    """Data sets in the account's bucket, packed, with the digest of every file; experiments name them: dataset:NAME."""


command.add_command(snapshot.command)


def _order(given: Mapping[str, Any], home: Path) -> Order:
    """Return what the options order; without a work folder among them it is made in `home`."""
    from orchestrator.datasets.order import Order

    work = given["work"] or home
    return Order(
        name=given["name"],
        source=given["source"],
        as_is=given["as_is"],
        originals=not given["copies_only"],
        arguments=_arguments(given),
        home=work.absolute(),
    )


def _build_faults(given: Mapping[str, Any]) -> list[BadInput]:
    """Return what is wrong with a build before anything is asked of a cloud; what was not given is None."""
    from orchestrator.datasets import build, sharded

    name = given["name"]
    found = [] if name is None or is_name(name) else [BadInput(f"NAME is {name!r}", f"it must be {NAME_RULE}")]
    found += run_faults(given)
    if given["source"] is not None:
        found += (build if given["nodes"] is None else sharded).faults(_order(given, Path()))
    return found


@command.command(check=lambda given: lines_of(_build_faults(given)), decisive={"nodes"})
@click.argument("source", metavar="SRC")
@click.argument("name", metavar="NAME")
@click.option(
    "--sizes", callback=_sizes, metavar="PIXELS,...", help="Short sides of the smaller copies, or none (160,352)."
)
@click.option("--val-labels", type=click.Path(exists=True, dir_okay=False), help="Lines `name class`, for flat images.")
@click.option("--quality", type=click.IntRange(1, 95), metavar="Q", help="Of the copies' JPEGs (75).")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="That read and shrink (one for each CPU).")
@click.option(
    "--max-corrupt",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of images to leave out that nothing can decode (0.001).",
)
@click.option("--copies-only", is_flag=True, help="Upload the smaller copies and not the images as they were.")
@click.option("--as-is", is_flag=True, help="Pack nothing: upload the files of the folder as they are.")
@click.option("--force", is_flag=True, help="Build even when a data set of the same source and options is there.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="Where to pack ($ORCH_HOME/building).")
@run_options
@cloud_option
@json_option
@click.pass_context
def build(ctx: click.Context, /, *, force: bool, cloud: str | None, as_json: bool, **given: Any) -> int:
    """Pack SRC and put it into S3 as data set NAME.

    SRC is a folder or tar of images as `python -m trainer pack` takes them, a folder that is packed already, or an
    s3:// prefix that holds one of these. Ended anywhere and started again, it goes on where it was.

    With --nodes it is packed by a run of so many machines, planned, priced, capped and billed as by `orch launch`; SRC
    must be in S3. The same command again goes on with that run.

    A data set of the same source and options is not built again, wherever it was built.
    """
    from orchestrator.datasets.build import build as build_dataset

    refuse_all(_build_faults(given), ctx)
    home = open_home()
    run = take_run_options(given)
    order = _order(given, home.path / "building")
    if run.nodes is not None:
        return build_on_nodes(order, run, home, cloud, force=force, as_json=as_json)
    place = open_for_launch(home, wanted(home, cloud), lambda line: click.echo(line, err=True))
    with shown(as_json=as_json) as progress:
        built = build_dataset(order, place.session, place.bucket, datetime.now(UTC), progress, force=force)
    tell_built(built, "uploaded", as_json=as_json)
    return Exit.DONE


def _arguments(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options that are the trainer's, as it wants them."""
    words: list[str] = []
    for key, value in given.items():
        if key in TRAINERS and value is not None:
            words += [f"--{key.replace('_', '-')}", str(Path(value).absolute() if key == "val_labels" else value)]
    return tuple(words)


@command.command(name="list")
@cloud_option
@json_option
def list_(*, cloud: str | None, as_json: bool) -> None:
    """List the data sets with their versions and snapshots, builds that were not finished among them."""
    from orchestrator.report.datasets import item_json
    from orchestrator.run.datasets import list_datasets

    place = _place(cloud)
    snapshots = _snapshots(place)
    items = list_datasets(place.session, place.bucket, snapshots=snapshots)
    if as_json:
        _print([item_json(item, snapshots) for item in items])
    elif items:
        _list(items, snapshots)
    else:
        click.echo("no data sets; `orch dataset build SRC NAME` makes one")


@command.command()
@click.argument("name", metavar=NAME)
@cloud_option
@json_option
def show(*, name: str, cloud: str | None, as_json: bool) -> None:
    """Show a data set: its URL, files and digests, what it costs to keep, and the runs that use it.

    One that lacks files, or its manifest, is named with what to do about it.
    """
    from orchestrator.run.datasets import check_files, find, parse, users

    place = _place(cloud)
    snapshots = _snapshots(place, parse(name).name)
    item = find(place.session, place.bucket, name, snapshots)
    check_files(place.bucket, item)
    used_by = users(place.bucket, [item])
    if as_json:
        from orchestrator.report.datasets import dataset_json

        _print(dataset_json(item, used_by, snapshots))
        return
    from orchestrator.report import datasets
    from orchestrator.report.console import make_console

    datasets.show(make_console(), item, used_by, snapshots)


@command.command()
@click.argument("name", metavar=NAME)
@click.argument("folder", metavar="DST", type=click.Path(file_okay=False, path_type=Path))
@cloud_option
@json_option
def stage(*, name: str, folder: Path, cloud: str | None, as_json: bool) -> None:
    """Bring a data set into the folder DST, each file checked by its digest; what is there and right is not moved."""
    from orchestrator.core.units import format_size
    from orchestrator.datasets.stage import stage as stage_here
    from orchestrator.run.datasets import find

    place = _place(cloud)
    item = find(place.session, place.bucket, name)
    with shown(as_json=as_json) as progress:
        tally = stage_here(place.bucket, item, folder, progress)
    if as_json:
        from orchestrator.report.json import line

        click.echo(line(item.to_json() | {"moved_bytes": tally.moved, "kept_bytes": tally.kept}))
        return
    click.echo(f"{item.reference} is in {folder}, every digest right")
    click.echo(f"fetched {format_size(tally.moved)}; {format_size(tally.kept)} were there already")


@command.command()
@click.argument("name", metavar=NAME)
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@yes_option
@cloud_option
@json_option
def rm(*, name: str, dry_run: bool, yes: bool, cloud: str | None, as_json: bool) -> int:
    """Remove a data set (without @VERSION: all its versions) with its snapshots, after a yes.

    Refused while a run uses it.
    """
    from orchestrator.aws.snapshots import Snapshots
    from orchestrator.report.datasets import item_json
    from orchestrator.run.datasets import named, parse, remove, users

    place = _place(cloud)
    wanted_set = parse(name)
    snapshots = _snapshots(place, wanted_set.name)
    items = named(place.session, place.bucket, wanted_set, snapshots)
    if not as_json:
        _list(items, snapshots)
    used_by = users(place.bucket, items)
    if used_by:
        raise BadInput(
            f"{name} is used by {', '.join(used_by)}",
            "wait for the end of the run, or `orch stop` it; nothing was removed",
        )
    if not (yes or dry_run or can_ask()):
        raise BadInput(
            "removing needs a yes, and there is no terminal to ask on", "give -y, or --dry-run to see what would go"
        )
    going = yes and not dry_run
    if not (yes or dry_run):
        question = f"Remove {counted(len(items), 'version')} of {items[0].name}?"
        going = click.confirm(question, default=False, err=as_json)
    for item in items if going else ():
        # Its snapshots first: they are found by its name.
        for made in (made for made in snapshots if made.version == item.version):
            Snapshots(place.session).remove(made)
        remove(place.session, place.bucket, item.name, item.version)
    if as_json:
        _print({"removed": going, "datasets": [item_json(item, snapshots) for item in items]})
    else:
        click.echo("removed" if going else "nothing was removed; -y removes it without asking")
    return Exit.DONE


def _list(items: Sequence[Dataset], snapshots: Sequence[Snapshot]) -> None:
    from orchestrator.report.console import make_console
    from orchestrator.report.datasets import list_table

    make_console().print(list_table(items, snapshots))


def _snapshots(place: Place, name: str | None = None) -> Sequence[Snapshot]:
    """Return the published snapshots of data sets, of one where it is named."""
    from orchestrator.aws.snapshots import Snapshots

    return Snapshots(place.session).published(name)


def _place(cloud: str | None) -> Place:
    """Return the cloud whose data sets are meant. Raises NoPermission when none is in reach."""
    places, errors = in_reach(open_home(), cloud)
    if not places:
        raise errors[0] if errors else NoCredentials(NO_CREDENTIALS, GET_CLOUD)
    return places[0]


def _print(value: Any) -> None:
    from orchestrator.report.json import dumps

    click.echo(dumps(value))
