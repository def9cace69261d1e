"""What this machine keeps under `$ORCH_HOME` (default `~/.orch`): a cache, an SSH key per run, and finished reports.

Nothing here is needed to know the state of a run, or to go on with it; only secrets have to be given again elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.core.ids import is_run_id
from orchestrator.errors import NotFound


@dataclass(frozen=True, slots=True)
class CachedRun:
    """A run this machine has seen."""

    run_id: str
    cloud: str
    name: str
    created: str


class Home:
    """The folder `$ORCH_HOME`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def from_environment(cls) -> Home:
        """Return the home that `$ORCH_HOME` names, or `~/.orch`."""
        return cls(Path(os.environ.get("ORCH_HOME") or Path.home() / ".orch").expanduser().absolute())

    def folder(self, run_id: str) -> Path:
        """Return the folder of a run, made with mode 0700."""
        if not is_run_id(run_id):
            raise NotFound(f"{run_id!r} is not the id of a run", "`orch status` lists them")
        folder = self.path / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    @property
    def runs(self) -> list[CachedRun]:
        """Every run seen from here, newest first; unreadable entries are skipped."""
        found = []
        for file in (self.path / "runs").glob("*/run.json"):
            try:
                found.append(CachedRun(**json.loads(file.read_text())))
            except (OSError, ValueError, TypeError):
                continue
        return sorted(found, key=lambda item: item.created, reverse=True)

    def remember(self, run: CachedRun) -> None:
        """Keep that the run exists and on which cloud."""
        write_private(self.folder(run.run_id) / "run.json", json.dumps(asdict(run)).encode())

    def private_key(self, run_id: str) -> Path:
        """Return where this machine's private SSH key to the nodes of a run lies, once it has one (`run.keys`)."""
        return self.path / "runs" / run_id / "id_ed25519"

    def keep_private_key(self, run_id: str, key: str) -> None:
        """Store a private key to the nodes of a run, mode 0600, unless there is one: two commands may make one."""
        folder = self.folder(run_id)
        with TemporaryDirectory(dir=folder) as unseen:
            made = Path(unseen) / "key"
            write_private(made, key.encode())
            with suppress(FileExistsError):
                self.private_key(run_id).hardlink_to(made)

    def keep_secrets(self, run_id: str, secrets: Mapping[str, str]) -> None:
        """Store the values of the run's secrets for its scheduler, mode 0600, until the run ends."""
        if secrets:
            write_private(self.folder(run_id) / "secrets.json", json.dumps(dict(secrets)).encode())

    def secrets(self, run_id: str) -> dict[str, str]:
        """Return the stored secrets; empty when there are none."""
        file = self.folder(run_id) / "secrets.json"
        return {str(k): str(v) for k, v in json.loads(file.read_text()).items()} if file.exists() else {}

    def forget_secrets(self, run_id: str) -> None:
        """Delete the stored secrets."""
        (self.folder(run_id) / "secrets.json").unlink(missing_ok=True)

    def save_report(self, report: Mapping[str, Any], page: str | None = None) -> None:
        """Keep a finished run's report (and its page), so that it outlives the bucket it came from."""
        folder = self.folder(str(report["run_id"]))
        write_private(folder / "report.json", json.dumps(report, indent=1).encode())
        if page is not None:
            write_private(folder / "report.html", page.encode())

    def load_report(self, run_id: str) -> dict[str, Any] | None:
        """Return the kept report, None when there is none."""
        file = self.path / "runs" / run_id / "report.json"
        if not file.exists():
            return None
        value: dict[str, Any] = json.loads(file.read_text())
        return value

    def knows(self, run_id: str) -> bool:
        """Tell whether anything is kept here of a run."""
        return (self.path / "runs" / run_id).is_dir()


def write_private(file: Path, body: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(body)
    temporary.replace(file)
