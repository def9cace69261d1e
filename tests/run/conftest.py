"""EC2 and S3 over real HTTP, with machines that are only noted down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.aws import account
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.settings import Settings
from orchestrator.sandbox.boundary import HostSpec, PushedKey
from orchestrator.sandbox.catalogue import SANDBOX_AMI
from orchestrator.sandbox.cloud import SandboxCloud


class NoHosts:
    """Machines without substance."""

    def boot(self, spec: HostSpec) -> None:
        pass

    def halt(self, instance_id: str) -> None:
        pass

    def capture(self, instance_id: str, image_id: str, *, reboot: bool) -> None:
        pass

    def forget_image(self, image_id: str) -> None:
        pass

    def snapshot(self, instance_id: str, volume_id: str, snapshot_id: str) -> None:
        pass

    def forget_snapshot(self, snapshot_id: str) -> None:
        pass

    def announce_interruption(self, instance_id: str, iso_time: str) -> None:
        pass

    def announce_rebalance(self, instance_id: str, iso_time: str) -> None:
        pass

    def take_keys(self, instance_id: str, keys: tuple[PushedKey, ...]) -> None:
        pass

    def disturb(self, instance_id: str, kind: str) -> None:
        pass

    def heal(self, instance_id: str, kind: str) -> None:
        pass

    def disturbances(self, instance_id: str) -> tuple[str, ...]:
        return ()

    def swallows(self, port: int) -> bool:
        return False


@pytest.fixture(scope="module")
def cloud() -> Iterator[SandboxCloud]:
    made = SandboxCloud("us-east-1", 0, 0.05, 0.05, NoHosts())
    yield made
    made.close()


@pytest.fixture(scope="module")
def settings(cloud: SandboxCloud) -> Settings:
    host, port = cloud.serve()
    return Settings(
        cloud="sandbox",
        region="us-east-1",
        endpoint_url=f"http://{host}:{port}",
        access_key=cloud.access_key,
        secret_key=cloud.secret_key,
        ssh_user="me",
        ssh_address="private",
        image=SANDBOX_AMI,
    )


@pytest.fixture(scope="module")
def session(settings: Settings) -> Session:
    return Session(settings)


@pytest.fixture(scope="module")
def bucket(session: Session) -> Bucket:
    account.ensure_bucket(session, "orch-test-us-east-1")
    return Bucket(session, "orch-test-us-east-1")
