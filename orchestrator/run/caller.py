"""The address from which this machine reaches its nodes: what the security group opens SSH to."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from typing import Literal

from orchestrator.errors import Unreachable

CHECK_IP = "https://checkip.amazonaws.com"


def caller_cidr(ssh_address: Literal["public", "private"], network: str) -> str:
    """Return this machine's address as a /32: the one the internet sees, or the one that faces the VPC's `network`.

    Raises Unreachable when it cannot be found out.
    """
    try:
        address = _public() if ssh_address == "public" else _towards(network)
        return f"{ipaddress.IPv4Address(address)}/32"
    except (OSError, ValueError) as error:
        raise Unreachable(
            f"this machine's own address could not be found: {error}", "set ssh_cidr in the config file of $ORCH_HOME"
        ) from error


def _public() -> str:
    with urllib.request.urlopen(CHECK_IP, timeout=10) as reply:
        return str(reply.read(64).decode().strip())


def _towards(network: str) -> str:
    neighbour = next(ipaddress.IPv4Network(network).hosts())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # A datagram socket's `connect` only asks the routing table; nothing is sent.
        probe.connect((str(neighbour), 9))
        return str(probe.getsockname()[0])
