"""The scheduler in a local tmux session of its own: closing the terminal it was launched from changes nothing."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from pathlib import Path

from orchestrator.core.ids import session_name
from orchestrator.node.tmux import Tmux
from orchestrator.run.home import Home


def socket_name(home: Home) -> str:
    """Return the name of the tmux server that belongs to this `$ORCH_HOME`; the user's own server is left alone."""
    return f"orch-{hashlib.sha256(str(home.path).encode()).hexdigest()[:10]}"


def log_file(home: Home, run_id: str) -> Path:
    """Return where the scheduler of a run logs on this machine."""
    return home.folder(run_id) / "scheduler.log"


def start_scheduler(home: Home, run_id: str, cloud: str) -> None:
    """Start the scheduler of a run unless one runs in this home already. Raises OrchError when tmux cannot be run."""
    tmux = Tmux(socket_name(home))
    session = session_name(run_id)
    if tmux.has_session(session):
        return
    command = [sys.executable, "-m", "orchestrator.cli.main", "schedule", run_id, "--cloud", cloud]
    line = f"exec {shlex.join(command)} >>{shlex.quote(str(log_file(home, run_id)))} 2>&1"
    tmux.new_session(session, "scheduler", ["bash", "-c", line], env=handed_on(home))


def handed_on(home: Home) -> dict[str, str]:
    """Return the variables that `orch` in a tmux session needs: the server may have been started by another shell."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "PYTHON", "ORCH_", "PATH"))}
    return {"ORCH_HOME": str(home.path)} | kept


def scheduler_alive(home: Home, run_id: str) -> bool:
    """Tell whether the scheduler of a run lives in this home's tmux server."""
    return Tmux(socket_name(home)).has_session(session_name(run_id))
