"""Seeing that what was asked of a run is carried out: a scheduler of it on this machine."""

from __future__ import annotations

import getpass
import socket
import time

from orchestrator.cli.context import Place, open_home

HANDOVER_SECONDS = 15.0


def who() -> str:
    """Return who asks, for the run's ledger."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def ensure_scheduler(place: Place, run_id: str) -> None:
    """See that somebody carries out what was asked. Raises NotFound when this machine has no key of the run."""
    from orchestrator.run.detach import scheduler_alive, start_scheduler

    home = open_home()
    home.private_key(run_id)
    # The scheduler of a generation that just ended may still be writing its page; it does not begin another one.
    deadline = time.monotonic() + HANDOVER_SECONDS
    while scheduler_alive(home, run_id) and time.monotonic() < deadline:
        time.sleep(0.2)
    start_scheduler(home, run_id, place.cloud)
