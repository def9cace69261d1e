"""What is written down of a sandbox that is up, or was: `$ORCH_HOME/sandbox/state.json`, private to the user.

Light to import, since every `orch` command may look whether the sandbox is up. Says nothing of hosts: they are found by
their marks, dead daemon or not.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.core.settings import Settings
from orchestrator.sandbox import supervisor

VERSION = 1


@dataclass(frozen=True, slots=True)
class State:
    """One sandbox. `pid` is the daemon's, 0 while it starts. Its keys are drawn for it; real ones are never read."""

    version: int
    region: str
    user: str
    port: int
    ssh_port: int
    imds_port: int
    token: str
    access_key: str
    secret_key: str
    seed: int
    pending_seconds: float
    shutting_down_seconds: float
    image: str
    pid: int = 0
    key_seconds: float = 60.0

    @property
    def endpoint_url(self) -> str:
        """Where its AWS is served."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Settings:
        """The sandbox as a cloud."""
        return Settings(
            cloud="sandbox",
            region=self.region,
            endpoint_url=self.endpoint_url,
            access_key=self.access_key,
            secret_key=self.secret_key,
            ssh_user=self.user,
            ssh_port=self.ssh_port,
            ssh_address="private",
            image=self.image,
        )


def sandbox_folder(home: Path) -> Path:
    """Return the folder of the sandbox of `home`, links resolved: its processes are marked by its name."""
    return home.expanduser().resolve() / "sandbox"


def read(folder: Path) -> State | None:
    """Return the state of the sandbox in `folder`; None when there is none, or none that this version wrote."""
    try:
        return State(**json.loads((folder / "state.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, state: State) -> None:
    """Write the state, whole or not at all, readable by the user alone."""
    new = folder / "state.json.new"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(state), file)
    new.replace(folder / "state.json")


def running(folder: Path) -> State | None:
    """Return the state of the sandbox in `folder` if its daemon lives; its mark tells it from a later process."""
    state = read(folder)
    if state is None or state.version != VERSION or state.pid <= 0:
        return None
    alive = supervisor.mark_on(state.pid) == supervisor.mark_of(str(folder), 0) and not supervisor.is_dead(state.pid)
    return state if alive else None
