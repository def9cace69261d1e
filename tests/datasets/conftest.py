"""An S3 over real HTTP, a folder to build in, and progress that is noted down."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.datasets.build import Built
from orchestrator.datasets.build import build as build_dataset
from orchestrator.datasets.order import Order
from tests.datasets.noted import Builder, Noted
from tests.run.conftest import bucket, cloud, session, settings

__all__ = ["bucket", "cloud", "session", "settings"]


@pytest.fixture
def progress() -> Noted:
    return Noted()


@pytest.fixture
def build(session: Session, bucket: Bucket, progress: Noted, tmp_path: Path) -> Builder:
    """Build a data set, as it is unless told to pack it."""

    def made(
        source: Path | str, name: str, *arguments: str, as_is: bool = True, originals: bool = True, force: bool = False
    ) -> Built:
        order = Order(
            name=name,
            source=str(source),
            as_is=as_is,
            originals=originals,
            arguments=arguments,
            home=tmp_path / "building",
        )
        return build_dataset(order, session, bucket, datetime.now(UTC), progress, force=force)

    return made
