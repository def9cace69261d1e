"""A cloud made of values for tests of the command line: its runs are what the test says they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from click.testing import CliRunner, Result

from orchestrator.cli.context import Place
from orchestrator.cli.main import orch
from orchestrator.core.settings import Settings
from orchestrator.errors import NotFound
from orchestrator.run.home import Home
from orchestrator.run.view import RunView

SETTINGS = {
    "aws": Settings(cloud="aws", region="us-east-1"),
    "sandbox": Settings(cloud="sandbox", region="us-east-1", endpoint_url="http://127.0.0.1:1"),
}


@dataclass
class FakeCloud:
    """What both clouds hold: `runs` by cloud and id, each a view or a list of views that readings go through."""

    up: list[str] = field(default_factory=lambda: ["sandbox"])
    runs: dict[str, dict[str, list[RunView]]] = field(default_factory=lambda: {"aws": {}, "sandbox": {}})
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, *views: RunView, cloud: str = "sandbox", run_id: str | None = None) -> None:
        """Make a run whose successive readings are `views`; the last one stays."""
        self.runs[cloud][run_id or views[0].spec.run_id] = list(views)

    def place(self, cloud: str) -> Place:
        return Place(SETTINGS[cloud], Handle(cloud), Handle(cloud))  # type: ignore[arg-type]

    def read(self, cloud: str, run_id: str) -> RunView:
        if run_id not in self.runs[cloud]:
            raise NotFound(f"there is no run {run_id}", "`orch status` lists the runs")
        views = self.runs[cloud][run_id]
        return views.pop(0) if len(views) > 1 else views[0]


@dataclass(frozen=True)
class Handle:
    """Stands for a session or bucket of a cloud."""

    cloud: str
    name: str = "orch-1-us-east-1"


@dataclass
class Orch:
    """The command line, run in this process."""

    home: Home
    cloud: FakeCloud

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(orch, list(arguments), input=stdin)
