"""A process may hold one cloud after another; each begins empty."""

from __future__ import annotations

import http.client

import pytest

from orchestrator.sandbox.cloud import SandboxCloud
from tests.sandbox.cloud_fixture import NotingHosts


def test_a_closed_cloud_is_gone_and_a_new_one_begins_empty() -> None:
    one = SandboxCloud("us-east-1", 0, 0.1, 0.1, NotingHosts())
    host, port = one.serve()
    one.close()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(host, port).request("GET", "/")
    two = SandboxCloud("eu-west-1", 0, 0.1, 0.1, NotingHosts())
    assert (two.status()["instances"], two.region) == ([], "eu-west-1")
    assert one.secret_key != two.secret_key
    two.close()
