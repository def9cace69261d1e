"""Private addresses of the sandbox's machines: each lies in its zone's subnet and is where the machine's sshd listens.

Addresses go round: one is not given again before the subnet is through, so that a late process of a machine that is
gone never meets its successor. Not thread-safe; the EC2 lock is held.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

VPC = "127.16.0.0/16"
_LOWEST, _HIGHEST = 10, 254


class Addresses:
    """The addresses of one subnet."""

    def __init__(self, cidr: str) -> None:
        self._all = [address for address in IPv4Network(cidr) if _LOWEST <= address.packed[3] <= _HIGHEST]
        self._next = 0
        self._used: set[IPv4Address] = set()

    @property
    def free(self) -> int:
        """How many machines still fit."""
        return len(self._all) - len(self._used)

    def take(self) -> str:
        """Return an address that nobody has. Raises LookupError when all are taken."""
        for _ in range(len(self._all)):
            address = self._all[self._next]
            self._next = (self._next + 1) % len(self._all)
            if address not in self._used:
                self._used.add(address)
                return str(address)
        raise LookupError("no free address")

    def give_back(self, address: str) -> None:
        """Make an address free again; others are ignored."""
        self._used.discard(IPv4Address(address))
