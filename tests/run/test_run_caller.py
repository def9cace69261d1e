"""Which address the security group is opened to."""

from __future__ import annotations

import ipaddress

import pytest

from orchestrator.errors import Unreachable
from orchestrator.run.caller import caller_cidr


def test_on_a_private_network_it_is_the_address_that_faces_the_nodes() -> None:
    cidr = caller_cidr("private", "127.16.0.0/16")
    assert cidr.endswith("/32")
    assert ipaddress.IPv4Network(cidr).network_address.is_loopback


def test_an_address_that_cannot_be_found_is_asked_of_the_user() -> None:
    with pytest.raises(Unreachable, match="own address") as refusal:
        caller_cidr("private", "no network")
    assert "ssh_cidr" in refusal.value.hint
