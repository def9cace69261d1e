"""Bytes between nodes: what a link gives in both directions at once, and a ring as an all-reduce would use it.

Plain TCP of the standard library. It adds nothing up: what is measured is the network and the machines that drive it.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

# Long enough that a link that stalls now and then cannot hide it, short enough to be nothing beside a training.
LINK_SECONDS = 0.2
LINK_BYTES = 4 << 20  # between two looks at the clock
RING_BYTES = 8 << 20
BLOCK = 1 << 18
SECONDS = 20.0


class Line:
    """One JSON object a line over a connection."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._rest = b""

    def send(self, value: Any) -> None:
        """Send an object. Raises OSError."""
        self.link.settimeout(SECONDS)
        self.link.sendall(json.dumps(value).encode() + b"\n")

    def receive(self, seconds: float | None) -> dict[str, Any]:
        """Return the next object. Raises OSError when none comes, ValueError when it is none."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._rest:
            self.link.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            piece = self.link.recv(BLOCK)
            if not piece:
                raise ConnectionError("the other side has gone")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError(f"not an object: {line[:80]!r}")
        return value

    @property
    def broken(self) -> bool:
        """Whether the other side has hung up."""
        self.link.setblocking(False)
        try:
            return not self.link.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self.link.close()


class Door:
    """Where a node is reached by its peers. `order` numbers what is done: an old caller is not taken for a new one."""

    def __init__(self, address: str) -> None:
        self._listener = socket.create_server((address, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    def call(self, address: str, port: int, order: int) -> socket.socket:
        """Return a connection to a peer. Raises OSError."""
        link = socket.create_connection((address, port), SECONDS)
        link.sendall(order.to_bytes(8, "big"))
        return _quick(link)

    def answer(self, order: int) -> socket.socket:
        """Return the connection of the peer that calls for `order`. Raises OSError."""
        deadline = time.monotonic() + SECONDS
        while True:
            self._listener.settimeout(max(0.001, deadline - time.monotonic()))
            link, _ = self._listener.accept()
            link.settimeout(SECONDS)
            with suppress(OSError):
                if link.recv(8, socket.MSG_WAITALL) == order.to_bytes(8, "big"):
                    return _quick(link)
            link.close()


def _quick(link: socket.socket) -> socket.socket:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def measure_link(link: socket.socket, *, leads: bool) -> float:
    """Return the bytes/s of each direction while bytes go both ways; who `leads` says when it ends. Raises OSError."""
    _swap(link, link, 1)
    began = time.monotonic()
    moved, more = 0, True
    while more:
        _swap(link, link, LINK_BYTES)
        moved += LINK_BYTES
        more = time.monotonic() - began < LINK_SECONDS
        said = _swap(link, link, 1, b"\1" if more else b"\0")
        more = more if leads else said == b"\1"
    return moved / (time.monotonic() - began)


def measure_ring(onward: socket.socket, back: socket.socket, nodes: int, size: int = RING_BYTES) -> float:
    """Return the bus bandwidth (bytes/s) of a ring all-reduce of `size` bytes over `nodes`. Raises OSError.

    Source of the measure: NVIDIA nccl-tests, doc/PERFORMANCE.md.
    """
    _swap(onward, back, 1)
    began = time.monotonic()
    steps = 2 * (nodes - 1)
    for _ in range(steps):
        _swap(onward, back, size // nodes)
    return size * steps / nodes / (time.monotonic() - began)


_NOTHING = memoryview(bytes(BLOCK))


def _swap(out: socket.socket, into: socket.socket, size: int, said: bytes | memoryview = _NOTHING) -> bytes:
    """Send `size` bytes, `said` again and again, while as many come in; return the last that came. Raises OSError."""
    for link in (out, into):
        link.setblocking(False)
    buffer, came = bytearray(BLOCK), 0
    to_send = to_come = size
    while to_send or to_come:
        ready, free, _ = select.select([into] if to_come else [], [out] if to_send else [], [], SECONDS)
        if not ready and not free:
            raise TimeoutError(f"nothing moved for {SECONDS:.0f} s")
        if free:
            to_send -= out.send(said[: min(BLOCK, to_send)])
        if ready:
            came = into.recv_into(buffer, min(BLOCK, to_come))
            if not came:
                raise ConnectionError("the other side has gone")
            to_come -= came
    return bytes(buffer[max(0, came - 1) : came])


def reach(address: str, port: int, seconds: float, pauses: Sequence[float] = (0.05, 0.1, 0.2, 0.5)) -> Line:
    """Return a line to the node of rank 0 once it is there. Raises OSError when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    attempt = 0
    while True:
        try:
            return Line(socket.create_connection((address, port), 5.0))
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(pauses[min(attempt, len(pauses) - 1)])
        attempt += 1
