"""`orch dataset build --nodes`: a run packs the data set; then its parts are put together. Started again it goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import open_for_launch, wanted
from orchestrator.cli.dataset_parts import conclude_packing, put_together
from orchestrator.cli.dataset_progress import tell_built
from orchestrator.cli.experiment import FLAGS, Loaded
from orchestrator.cli.options import F, need_yes, read_caps, yes_option
from orchestrator.core.units import counted
from orchestrator.errors import BadInput, Exit

if TYPE_CHECKING:
    from orchestrator.cli.context import Place
    from orchestrator.core.dataset import Origin
    from orchestrator.datasets.order import Order
    from orchestrator.datasets.sharded import Found
    from orchestrator.run.home import Home
    from orchestrator.run.prepare import Prepared
    from orchestrator.run.view import RunView

BACK = "the same command comes back to it, and puts the parts together when it has finished"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `build` that are for the run of `nodes` machines; None: it is packed here."""

    nodes: int | None
    max_cost: str | None
    max_duration: str | None
    spot_policy: str | None
    sets: tuple[str, ...]
    dry_run: bool
    detach: bool
    yes: bool


@dataclass(frozen=True, slots=True)
class Made:
    """What is to be made: an order, its origin, and what was found at its source."""

    order: Order
    origin: Origin
    found: Found


def run_options(command: F) -> F:
    """Add them to `build`; `take_run_options` takes them out again."""
    for option in reversed(
        (
            click.option("--nodes", type=click.IntRange(min=1), metavar="N", help="Have N spot machines pack SRC."),
            click.option("--max-cost", metavar="DOLLARS", help="With --nodes: end the run before it costs more."),
            click.option("--max-duration", metavar="TIME", help="With --nodes: end the run after 90s, 10m, 1h30m."),
            click.option("--spot-policy", metavar="POLICY", help="With --nodes: spot, on-demand, or auto."),
            click.option(
                "--set", "sets", metavar="KEY=VALUE", multiple=True, help="With --nodes: any key of the experiment."
            ),
            click.option("--dry-run", is_flag=True, help="With --nodes: only show the plan."),
            yes_option,
            click.option("-d", "--detach", is_flag=True, help="With --nodes: return once the run has its scheduler."),
        )
    ):
        command = option(command)
    return command


def take_run_options(given: dict[str, Any]) -> RunOptions:
    """Return them, taken out of all options given."""
    return RunOptions(**{name: given.pop(name) for name in RunOptions.__slots__})


def run_faults(given: Mapping[str, Any]) -> list[BadInput]:
    """Return what is wrong with them among all options given: some without --nodes."""
    names = ("max_cost", "max_duration", "spot_policy", "dry_run", "detach")
    alone = [f"--{name.replace('_', '-')}" for name in names if given[name]] + (["--set"] if given["sets"] else [])
    if given["nodes"] is not None or not alone:
        return []
    several = len(alone) > 1
    what = f"{', '.join(alone)} {'are' if several else 'is'} for a build on nodes"
    return [BadInput(what, f"give --nodes N as well, or leave {'them' if several else 'it'} out")]


def build_on_nodes(
    order: Order, options: RunOptions, home: Home, cloud: str | None, *, force: bool, as_json: bool
) -> int:
    """Have nodes pack a data set that is not there, and put it together. Raises OrchError, of a run that failed too."""
    from orchestrator.datasets import sharded
    from orchestrator.datasets.build import built_before
    from orchestrator.datasets.joining import Packing
    from orchestrator.datasets.origin import list_source, origin_of
    from orchestrator.datasets.preview import refuse

    name = wanted(home, cloud)
    place = open_for_launch(home, name, _progress)
    rows = list_source(order, place.session)
    made = Made(order, origin_of(order, rows), sharded.look_at(order, rows))
    now = None if options.dry_run else datetime.now(UTC)
    there = None if force else built_before(order, made.origin, place.session, place.bucket, now)
    if there is not None:
        tell_built(there, "", as_json=as_json)
        return Exit.DONE
    run = sharded.earlier_run(order, made.origin, place.bucket)
    if run is None or not _goes_on(order, run, options, home, place, as_json=as_json):
        refuse(order, rows, place.session)
        run = _begin(made, options, home, place, as_json=as_json)
    if run is None:
        return Exit.DONE
    if not _waits(place, run):
        if options.detach:
            click.echo(json.dumps({"run_id": run, "cloud": place.cloud}) if as_json else f"run {run}; {BACK}")
            return Exit.DONE
        _wait(place, run, as_json=as_json)
    put_together(place, Packing(run, order, made.origin, anew=force), as_json=as_json)
    return Exit.DONE


def _begin(made: Made, options: RunOptions, home: Home, place: Place, *, as_json: bool) -> str | None:
    """Plan, ask and launch; return the run, None when only the plan was wanted."""
    from orchestrator.cli.plan import show
    from orchestrator.report.plan import question
    from orchestrator.run.detach import start_scheduler
    from orchestrator.run.prepare import begin

    prepared, loaded = _prepare(made, options, home, place)
    for change in () if as_json else loaded.changes:
        click.echo(change)
    if options.dry_run or not as_json:
        show(prepared, loaded, as_json=as_json)
    if options.dry_run:
        return None
    asked = question(prepared.plan.offers[0], prepared.experiment.nodes, prepared.plan.forecast(0))
    need_yes(
        asked,
        yes=options.yes,
        what="launching",
        hint="give -y, or --dry-run for the plan",
        declined="nothing was launched",
        as_json=as_json,
    )
    run = begin(prepared, place.session, home, name=None, now=datetime.now(UTC), on_progress=_progress).run_id
    _upload_labels(made.order, place)
    start_scheduler(home, run, place.cloud)
    return run


def _prepare(made: Made, options: RunOptions, home: Home, place: Place) -> tuple[Prepared, Loaded]:
    """Make the experiment of what is to be made and plan it."""
    from orchestrator.core.overrides import explain, load
    from orchestrator.core.units import format_size
    from orchestrator.datasets import sharded
    from orchestrator.run import ubuntu
    from orchestrator.run.prepare import Source, prepare

    order, found = made.order, made.found
    body = json.dumps(sharded.experiment(order, made.origin, found, options.nodes or 1, place.settings.image))
    flags = {key: getattr(options, name) for name, key in FLAGS.items() if name != "name"}
    what, profile = f"data set {order.name}", "sandbox" if place.cloud == "sandbox" else None
    loaded = load(body, what, profile=profile, sets=options.sets, flags=flags)
    changes = explain(body, what, profile, sets=options.sets, flags=flags) if profile else ()
    source = Source(what, None, profile)
    prepared = prepare(loaded, source, place.session, place.settings, environ=os.environ, home=home)
    note = (
        f"packs {order.source}: {counted(found.files, 'file')}, {format_size(found.size)}, into data set {order.name}"
    )
    prepared = replace(
        prepared,
        notes=(note, *prepared.notes),
        prelude=sharded.PRELUDE if loaded.resources.image == ubuntu.IMAGE else "",
        reads=(order.source,),
    )
    return prepared, Loaded(loaded, source, tuple(f"profile {profile}: {change}" for change in changes))


def _upload_labels(order: Order, place: Place) -> None:
    from orchestrator.datasets.sharded import labels_key

    labels = labels_key(order)
    if labels is not None:
        place.bucket.put(*labels)


def _goes_on(order: Order, run: str, options: RunOptions, home: Home, place: Place, *, as_json: bool) -> bool:
    """Go on with the earlier run of an order; False when that has been put together, so that a new one is wanted."""
    from orchestrator.cli.resume import check, go_on, what_happens
    from orchestrator.datasets.joining import is_packed
    from orchestrator.run.read import read_run

    caps, faults = read_caps(options.max_cost, options.max_duration)
    view = read_run(place.session, place.bucket, run)
    if not (view.ended or faults or options.dry_run) and (view.verdict is not None or view.ledger.stop is not None):
        view = _once_ended(place, view, as_json=as_json)
    packed = is_packed(place.bucket, run)
    if view.phase == "finished" and not packed:
        return False
    if options.dry_run:
        does = "has packed" if packed else "packs"
        raise BadInput(
            f"{run} {does} this already", f"without --dry-run the same command goes on with it; {_show(view)}"
        )
    if packed and view.ended:
        click.echo(f"{run} has packed it", err=True)
        return True
    renewed = check(place, view, caps, faults)
    if view.ended:
        question = (
            f"{run} ended as {view.phase}, {_show(view)}. Go on with its {view.spec.experiment.how_many('node')}?"
        )
        need_yes(
            question, yes=options.yes, what="going on", hint="give -y", declined="nothing was launched", as_json=as_json
        )
    _upload_labels(order, place)
    go_on(home, place, view, caps, renewed)
    click.echo(what_happens(view), err=True)
    return True


def _once_ended(place: Place, view: RunView, *, as_json: bool) -> RunView:
    """Wait for the end of a run that is being saved and ended: until then nothing can be asked of it."""
    from orchestrator.cli.follow import JsonLines, follow
    from orchestrator.cli.scheduling import ensure_scheduler

    run = view.spec.run_id
    why = f" ({view.verdict.message})" if view.verdict is not None else ""
    click.echo(f"{run} is being saved and ended{why}; this waits for that, then goes on with it", err=True)
    ensure_scheduler(place, view)
    return follow(place, run, screen=JsonLines() if as_json else None, starting=True)


def _waits(place: Place, run: str) -> bool:
    """Tell whether the parts of a run wait to be put together, and its lease is nobody's any more.

    Before it has ended a scheduler that only lags would lose the run, and its machines with it.
    """
    from orchestrator.datasets.joining import is_packed
    from orchestrator.run.read import read_run

    return is_packed(place.bucket, run) and read_run(place.session, place.bucket, run).ended


def _wait(place: Place, run: str, *, as_json: bool) -> None:
    """Show the run until it has ended, and its bill. Raises OrchError when it did not finish."""
    from orchestrator.cli.follow import JsonLines, follow

    click.echo(f"run {run}; Ctrl-C leaves this view, the run goes on; {BACK}", err=as_json)
    ended = follow(place, run, screen=JsonLines() if as_json else None, starting=True)
    conclude_packing(ended, as_json=as_json)


def _show(view: RunView) -> str:
    from orchestrator.core.units import format_usd

    return f"{format_usd(view.bill.high)} so far"


def _progress(line: str) -> None:
    click.echo(line, err=True)
