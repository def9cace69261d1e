"""`orch` against a cloud made of values, in a home of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.cli import context
from orchestrator.cli.context import NO_CREDENTIALS, NoCredentials, Place
from orchestrator.core.settings import Settings
from orchestrator.core.spec import RunSpec
from orchestrator.run.home import Home
from orchestrator.run.renewal import Renewed
from orchestrator.run.view import RunView
from orchestrator.sandbox.catalogue import SANDBOX_AMI
from tests.cli.fake_clouds import SETTINGS, FakeCloud, Handle, Orch
from tests.sandbox.cloud_fixture import REGION, World


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of its own, and no word of any cloud in the environment."""
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "orch"))
    for name in ("ORCH_CLOUD", "ORCH_DEBUG", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return Home(tmp_path / "orch")


@pytest.fixture
def sandboxed(shared_world: World, home: Home, monkeypatch: pytest.MonkeyPatch) -> Orch:
    """`orch` with the sandbox of the module's `shared_world` and no AWS."""
    cloud = shared_world.cloud
    settings = Settings("sandbox", REGION, shared_world.endpoint, cloud.access_key, cloud.secret_key, image=SANDBOX_AMI)

    def no_aws(_: Home) -> None:
        raise NoCredentials(NO_CREDENTIALS, context.GET_CLOUD)

    monkeypatch.setattr(context, "_sandbox", lambda _: settings)
    monkeypatch.setattr(context, "_open_aws", no_aws)
    return Orch(home, FakeCloud())


@pytest.fixture
def run_orch(home: Home, monkeypatch: pytest.MonkeyPatch) -> Orch:
    """`orch` against a fake cloud."""
    cloud = FakeCloud()

    def sandbox(_: Home) -> Settings | None:
        return SETTINGS["sandbox"] if "sandbox" in cloud.up else None

    def open_aws(_: Home) -> Place:
        if "aws" not in cloud.up:
            raise NoCredentials(NO_CREDENTIALS, context.GET_CLOUD)
        return cloud.place("aws")

    class FakeReader:
        def __init__(self, session: Handle, bucket: Handle, run_id: str, *, history: bool = False) -> None:
            self._read: Callable[[], RunView] = lambda: cloud.read(session.cloud, run_id)

        def read(self) -> RunView:
            return self._read()

    def list_runs(bucket: Handle) -> Sequence[str]:
        return list(cloud.runs[bucket.cloud])

    def read_run(session: Handle, bucket: Handle, run_id: str, *, history: bool = False) -> RunView:
        return cloud.read(session.cloud, run_id)

    def renew(spec: RunSpec, session: Handle, image: str | None) -> Renewed:
        return Renewed()

    monkeypatch.setattr("orchestrator.run.renewal.renew", renew)
    monkeypatch.setattr(context, "_sandbox", sandbox)
    monkeypatch.setattr(context, "_open_aws", open_aws)
    monkeypatch.setattr(context, "_open", lambda settings: cloud.place(settings.cloud))
    monkeypatch.setattr("orchestrator.run.read.list_runs", list_runs)
    monkeypatch.setattr("orchestrator.run.read.read_run", read_run)
    monkeypatch.setattr("orchestrator.run.read.Reader", FakeReader)
    monkeypatch.setattr("orchestrator.cli.follow.POLL_SECONDS", 0.0)
    return Orch(home, cloud)
