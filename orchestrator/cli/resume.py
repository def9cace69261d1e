"""`orch resume`: another generation of a run that ended, or another scheduler for one that goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cap_options, cloud_option, json_option, read_caps, run_argument
from orchestrator.cli.page import has_page, write_page
from orchestrator.cli.runs import find_run
from orchestrator.cli.scheduling import check_fit, check_no_build, ensure_scheduler, missing_secrets, who
from orchestrator.errors import BadInput, Exit

if TYPE_CHECKING:
    from orchestrator.cli.context import Place
    from orchestrator.core.caps import Caps
    from orchestrator.datasets.joining import Packing
    from orchestrator.run.home import Home
    from orchestrator.run.renewal import Renewed
    from orchestrator.run.view import RunView


@click.command(cls=AllFaults)
@run_argument
@cap_options
@cloud_option
@click.option("-d", "--detach", is_flag=True, help="Do not watch it.")
@json_option
def command(
    *, run: str | None, max_cost: str | None, max_duration: str | None, cloud: str | None, detach: bool, as_json: bool
) -> int:
    """Go on with RUN (the newest where it is left out).

    A run that ended before it finished is launched again as it was and trains on from its last verified checkpoint. One
    that goes on while its scheduler is gone gets a new scheduler; nothing is launched twice. One that a cap ended needs
    a higher one. The parts of a data set that a run of `orch dataset build --nodes` packed are put together at its end.
    A build of an image or a snapshot is not resumed: its own command begins anew.
    """
    from orchestrator.cli.dataset_parts import packing_of
    from orchestrator.cli.follow import Silent, follow
    from orchestrator.report.json import dumps

    caps, faults = read_caps(max_cost, max_duration)
    home = open_home()
    found = find_run(home, run, cloud)
    place = found.open()
    view = found.read()
    renewed = check(place, view, caps, faults if view.phase == "finished" else faults + missing_secrets(home, view))
    packing = packing_of(view)
    if view.phase == "finished" and _finish_rest(home, place, view, packing, as_json=as_json):
        return Exit.DONE
    go_on(home, place, view, caps, renewed)
    if not as_json:
        click.echo(what_happens(view))
    if detach:
        then = f"; then `orch resume {found.run_id}` puts its parts together" if packing is not None else ""
        click.echo(dumps(found.read().summary()) if as_json else f"`orch watch {found.run_id}` shows it{then}")
        return Exit.DONE
    ended = follow(place, found.run_id, screen=Silent() if as_json else None, starting=True)
    return _conclude(place, ended, packing, as_json=as_json)


def _finish_rest(home: Home, place: Place, view: RunView, packing: Packing | None, *, as_json: bool) -> bool:
    """Do what a run that finished still lacks, its page or what its parts make; tell whether it lacked anything."""
    from orchestrator.datasets.joining import is_packed

    run_id = view.spec.run_id
    lacks_page = not has_page(place, run_id)
    if lacks_page:
        write_page(place, home, run_id)
        click.echo(f"{run_id} has finished; its page was missing and is written", err=as_json)
    waits = packing is not None and is_packed(place.bucket, run_id)
    if lacks_page or waits:
        _conclude(place, view, packing if waits else None, as_json=as_json)
    return lacks_page or waits


def _conclude(place: Place, view: RunView, packing: Packing | None, *, as_json: bool) -> int:
    """Print how a run ended, and put together what it packed; of JSON the last line is then the data set."""
    from orchestrator.cli.dataset_parts import conclude_packing, put_together
    from orchestrator.cli.outcome import conclude

    if packing is None:
        return conclude(view, as_json=as_json)
    conclude_packing(view, as_json=as_json)
    put_together(place, packing, as_json=as_json)
    return Exit.DONE


def go_on(home: Home, place: Place, view: RunView, caps: Caps, renewed: Renewed) -> None:
    """See that a run goes on that has not finished, as `check` found that it can. Raises what `check_fit` does."""
    from orchestrator.run.wish import ask_extend, ask_resume

    check_fit(home, place, view)
    if view.ended:
        for note in renewed.notes(view.spec):
            click.echo(note, err=True)
        ask_resume(place.bucket, view.spec.run_id, who(), caps, renewed)
    elif caps.to_json():
        ask_extend(place.bucket, view.spec.run_id, who(), caps)
    ensure_scheduler(place, view)


def check(place: Place, view: RunView, caps: Caps, faults: list[str]) -> Renewed:
    """Return what the run is to be launched again with in place of what is gone since.

    Raises BadInput with everything that speaks against going on under these caps.
    """
    from orchestrator.core.caps import extend_faults, resume_faults
    from orchestrator.run.renewal import Renewed, renew

    if view.phase != "finished":
        check_no_build(view)
    renewed = Renewed()
    if view.ended and view.phase != "finished":
        renewed = renew(view.spec, place.session, place.settings.image)
        faults = faults + resume_faults(view.spec, view.spend, caps) + list(renewed.faults)
    elif caps.to_json() and not view.ended:
        faults = faults + extend_faults(view.spec, view.ledger, view.spend, view.facts.server_time, caps)
    if faults:
        raise BadInput(f"{view.spec.run_id} cannot be resumed so", "nothing was changed", details=tuple(faults))
    return renewed


def what_happens(view: RunView) -> str:
    """Return what `go_on` does, for people."""
    run_id = view.spec.run_id
    if view.ended:
        return f"resuming {run_id}: launching {view.spec.experiment.how_many('node')} again, from the last checkpoint"
    if view.scheduler is None:
        return f"{run_id} goes on; it has a new scheduler"
    return f"{run_id} goes on; {view.scheduler} schedules it"
