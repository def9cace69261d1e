"""Seeing that what was asked of a run is carried out: a scheduler of it on this machine."""

from __future__ import annotations

import getpass
import os
import socket
import time
from typing import TYPE_CHECKING

from orchestrator.cli.context import Place, open_home
from orchestrator.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.run.home import Home
    from orchestrator.run.view import RunView

HANDOVER_SECONDS = 15.0
SETTLING_SECONDS = 2.0


def who() -> str:
    """Return who asks, for the run's ledger."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def check_no_build(view: RunView) -> None:
    """Raise BadInput for a build of an image or a snapshot: another scheduler ends it with nothing published."""
    again, run_id = view.spec.build_command, view.spec.run_id
    if again and not view.ended and view.scheduler is not None:
        raise BadInput(f"{run_id} is a build that goes on", f"`orch watch {run_id}` shows it, `orch stop` ends it")
    if again:
        raise BadInput(f"{run_id} is a build, which cannot be gone on with", f"{again} begins anew")


def check_fit(home: Home, place: Place, view: RunView) -> None:
    """See that this machine can schedule the run, whoever launched it; its secrets are kept here for the scheduler.

    Raises BadInput (a secret is not set), NotOffered or KeyRefused (the nodes do not let this machine in).
    """
    from orchestrator.run.reach import check_key

    if view.ended or not _is_elsewhere(view):
        _keep_secrets(home, view)
    if not view.ended and not _is_elsewhere(view):
        check_key(view, home, session=place.session, bucket=place.bucket)


def _keep_secrets(home: Home, view: RunView) -> None:
    """Take the secrets from the environment: of a run that ended they were forgotten, elsewhere they never were."""
    run_id, names = view.spec.run_id, view.spec.experiment.secrets
    if _keeps_secrets(home, view):
        return
    missing = missing_secrets(home, view)
    if missing:
        raise BadInput(f"{run_id} cannot be resumed", "set them, then resume", details=tuple(missing))
    home.keep_secrets(run_id, {name: os.environ[name] for name in names})


def missing_secrets(home: Home, view: RunView) -> list[str]:
    """Return a line for each secret that whoever schedules the run from here would lack."""
    from orchestrator.run.here import fault_of_secret

    if _keeps_secrets(home, view) or (not view.ended and _is_elsewhere(view)):
        return []
    found = (fault_of_secret(name, os.environ) for name in view.spec.experiment.secrets)
    return [f"secrets: {fault}" for fault in found if fault]


def _keeps_secrets(home: Home, view: RunView) -> bool:
    return not view.ended and set(view.spec.experiment.secrets) <= home.secrets(view.spec.run_id).keys()


def _is_elsewhere(view: RunView) -> bool:
    return view.scheduler is not None and not view.scheduler.startswith(f"{socket.gethostname()} ")


def ensure_scheduler(place: Place, view: RunView) -> None:
    """See that somebody carries out what was asked."""
    from orchestrator.run.detach import scheduler_alive, start_scheduler

    if _is_elsewhere(view):
        return
    home = open_home()
    run_id = view.spec.run_id
    # The scheduler of a generation that just ended may still be writing its page, and does not begin another one; one
    # that was killed a moment ago may still look alive.
    gone = view.ended or view.scheduler is None
    deadline = time.monotonic() + (HANDOVER_SECONDS if gone else SETTLING_SECONDS)
    while scheduler_alive(home, run_id) and time.monotonic() < deadline:
        time.sleep(0.2)
    start_scheduler(home, run_id, place.cloud)
