"""Seeing that what was asked of a run is carried out: a scheduler of it on this machine."""

from __future__ import annotations

import getpass
import socket
import time
from typing import TYPE_CHECKING

from orchestrator.cli.context import Place, open_home

if TYPE_CHECKING:
    from orchestrator.run.view import RunView

HANDOVER_SECONDS = 15.0
SETTLING_SECONDS = 2.0


def who() -> str:
    """Return who asks, for the run's ledger."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def ensure_scheduler(place: Place, view: RunView) -> None:
    """See that somebody carries out what was asked. Raises NotFound when this machine has no key of the run."""
    from orchestrator.run.detach import scheduler_alive, start_scheduler

    if view.scheduler is not None and not view.scheduler.startswith(f"{socket.gethostname()} "):
        return
    home = open_home()
    run_id = view.spec.run_id
    home.private_key(run_id)
    # The scheduler of a generation that just ended may still be writing its page, and does not begin another one; one
    # that was killed a moment ago may still look alive.
    gone = view.ended or view.scheduler is None
    deadline = time.monotonic() + (HANDOVER_SECONDS if gone else SETTLING_SECONDS)
    while scheduler_alive(home, run_id) and time.monotonic() < deadline:
        time.sleep(0.2)
    start_scheduler(home, run_id, place.cloud)
