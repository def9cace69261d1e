"""`orch extend`: other caps for a run that goes on."""

from __future__ import annotations

from decimal import Decimal

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cap_options, cloud_option, json_option, read_caps, run_argument
from orchestrator.cli.runs import find_run
from orchestrator.cli.scheduling import check_fit, check_no_build, ensure_scheduler, missing_secrets, who
from orchestrator.core.units import MICRO, format_usd
from orchestrator.errors import BadInput


@click.command(cls=AllFaults)
@run_argument
@cap_options
@cloud_option
@json_option
def command(
    *, run: str | None, max_cost: str | None, max_duration: str | None, cloud: str | None, as_json: bool
) -> int:
    """Give RUN (the newest where it is left out) more money or time, or less than it had.

    Its scheduler goes by the new caps from its next look on, and sets the nodes' own timers anew. A run that has ended
    takes new caps with `orch resume`.
    """
    from orchestrator.core.caps import extend_faults
    from orchestrator.report.json import dumps
    from orchestrator.run.wish import ask_extend

    caps, faults = read_caps(max_cost, max_duration)
    if max_cost is None and max_duration is None:
        faults = ["give --max-cost, --max-duration, or both"]
    home = open_home()
    found = find_run(home, run, cloud)
    place, view = found.open(), found.read()
    if view.scheduler is None and view.phase != "finished":
        check_no_build(view)
    faults += extend_faults(view.spec, view.ledger, view.spend, view.facts.server_time, caps)
    faults += [] if view.ended else missing_secrets(home, view)
    if faults:
        hint = "nothing was changed"
        if view.ended:
            over = view.phase == "finished"
            hint = "`orch launch` begins a new run" if over else f"`orch resume {found.run_id}` takes caps, too"
        raise BadInput(f"{found.run_id} keeps its caps", hint, details=tuple(faults))
    check_fit(home, place, view)
    ask_extend(place.bucket, found.run_id, who(), caps)
    # Whoever builds an image or a snapshot schedules its run: another scheduler would publish nothing.
    if not view.spec.build_command:
        ensure_scheduler(place, view)
    row = found.read().summary()
    cap = row["max_cost_usd"]
    money = "no max_cost" if cap is None else f"max_cost {format_usd(round(Decimal(cap) * MICRO))}"
    click.echo(dumps(row) if as_json else f"{found.run_id} goes on under {money}, max_duration {row['max_duration']}")
    return 0
