"""The Python API: launch an experiment and hold on to the run. The command line calls the same functions.

from pathlib import Path
from orchestrator import Experiment, launch
from orchestrator.sandbox import control

settings = control.up(Path.home() / ".orch")
run = launch(Experiment.from_json({...}), settings=settings)
print(run.wait().bill.high)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.bill import Bill
from orchestrator.core.experiment import Experiment
from orchestrator.core.settings import Settings
from orchestrator.run.detach import start_scheduler
from orchestrator.run.home import Home
from orchestrator.run.prepare import Source, begin, prepare
from orchestrator.run.read import read_run
from orchestrator.run.view import RunView
from orchestrator.run.wish import ask_stop

POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was launched; it goes on whether or not anybody holds on to it."""

    run_id: str
    session: Session
    bucket: Bucket

    def view(self) -> RunView:
        """Return the run as it is now."""
        return read_run(self.session, self.bucket, self.run_id, history=True)

    def wait(self, pause: Callable[[float], None] = time.sleep) -> RunView:
        """Return the run once nothing of it is left."""
        while not (view := self.view()).ended:
            pause(POLL_SECONDS)
        return view

    def stop(self, reason: str = "stopped by the user") -> None:
        """Ask for a checkpoint and the end of the run."""
        ask_stop(self.bucket, self.run_id, "api", reason)

    def bill(self) -> Bill:
        """Return what it has cost so far."""
        return self.view().bill


def launch(
    experiment: Experiment,
    *,
    settings: Settings,
    folder: Path | None = None,
    home: Home | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Run:
    """Check, plan and launch an experiment; its scheduler runs detached on this machine.

    `folder` is where a relative `workdir` starts from (the current folder by default). Raises BadInput with every
    fault before any call to the cloud, NoCapacity, NoPermission or NotFound before anything is made.
    """
    session = Session(settings)
    here = home or Home.from_environment()
    source = Source(experiment.name, (folder or Path.cwd()) / "experiment")
    prepared = prepare(experiment, source, session, settings, environ=os.environ, home=here)
    spec = begin(prepared, session, here, name=None, now=datetime.now(UTC), on_progress=on_progress)
    start_scheduler(here, spec.run_id, settings.cloud)
    return Run(spec.run_id, session, Bucket(session, spec.bucket))
