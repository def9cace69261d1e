"""Fixtures of the tests of `orchestrator.aws`: one moto server, emptied for each test, and one set of clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.aws.session import Session
from orchestrator.core.settings import Settings
from tests.aws.aws_wire import Wire


@pytest.fixture(scope="session")
def server() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture(scope="session")
def clients(server: Wire) -> Session:
    return Session(Settings("test", "us-east-1", server.endpoint, "AKIATEST", "secret"))


@pytest.fixture
def wire(server: Wire) -> Wire:
    server.forget()
    return server


@pytest.fixture
def session(wire: Wire, clients: Session) -> Session:
    return clients
