"""S3 as the run sees it: strong reads after writes, conditional writes, and outages. In memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.beacon import Beacon
from orchestrator.core.facts import Instance, Node
from orchestrator.errors import NotFound, PreconditionFailed, Unreachable
from tests.sim.clock import Clock, moment


@dataclass(frozen=True, slots=True)
class Listed:
    """An object of a listing."""

    key: str
    etag: str


class Store:
    """One bucket, as far as `run.ledger`, `run.lease`, `run.wish` and the nodes use it.

    What nodes say (`nodes/<id>/`) is kept as values, not bytes: parsing them is tested elsewhere, and costs time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._listings: dict[str, tuple[Listed, ...]] = {}
        self._writes = 0
        self.down_until = 0.0
        self.nodes: dict[str, Node] = {}
        self.records: dict[str, Instance] = {}
        self.on_put: Callable[[str], None] = lambda key: None

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self._clock.now >= self.down_until

    def server_time(self) -> datetime:
        """Return the time of its last reply, carried on; needs no request."""
        return moment(self._clock.now)

    def list(self, prefix: str) -> tuple[Listed, ...]:
        """Return the objects under `prefix` in order of keys. Raises Unreachable."""
        self._answer()
        if prefix not in self._listings:
            self._listings[prefix] = tuple(Listed(key, self._objects[key][1]) for key in sorted(self.keys(prefix)))
        return self._listings[prefix]

    def get(self, key: str) -> bytes:
        """Return an object. Raises NotFound, Unreachable."""
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """Return an object and its ETag. Raises NotFound, Unreachable."""
        self._answer()
        if key not in self._objects:
            raise NotFound(f"{key} does not exist")
        return self._objects[key]

    def put(self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        """Write an object and return its ETag. Raises PreconditionFailed, Unreachable."""
        self._answer()
        there = self._objects.get(key)
        if (if_none_match and there is not None) or (if_match is not None and (there is None or there[1] != if_match)):
            raise PreconditionFailed(f"{key} was written by somebody else first")
        self._writes += 1
        etag = str(self._writes)
        self._objects[key] = (body, etag)
        for prefix in [prefix for prefix in self._listings if key.startswith(prefix)]:
            del self._listings[prefix]
        self.on_put(key)
        return etag

    def lose(self, key: str) -> None:
        """Let an object be gone."""
        self._objects.pop(key, None)
        self._listings.clear()

    def has(self, key: str) -> bool:
        """Tell whether there is such an object, whatever the weather: for those who judge, not for those who act."""
        return key in self._objects

    @property
    def lease_epoch(self) -> int:
        """The epoch of the lease of the only run there is."""
        bodies = [body for key, (body, _) in self._objects.items() if key.endswith("/lease.json")]
        return int(json.loads(bodies[0])["epoch"]) if bodies else 0

    def keys(self, prefix: str) -> tuple[str, ...]:
        """Return the keys under `prefix`, whatever the weather."""
        return tuple(key for key in self._objects if key.startswith(prefix))

    def peek(self, key: str) -> bytes:
        """Return an object that is there, whatever the weather."""
        return self._objects[key][0]

    def greet(self, instance_id: str, host_keys: tuple[str, ...], boot_failure: str | None) -> None:
        """Write what a node has to say at the end of its boot. Raises Unreachable."""
        self._answer()
        self.nodes[instance_id] = Node(host_keys, boot_failure, self.nodes.get(instance_id, Node()).beacon)

    def say(self, instance_id: str, beacon: Beacon) -> None:
        """Write the beacon of a node. Raises Unreachable."""
        self._answer()
        old = self.nodes.get(instance_id, Node())
        self.nodes[instance_id] = Node(old.host_keys, old.boot_failure, beacon)

    def record(self, instance: Instance) -> None:
        """Keep what EC2 said of an instance. Raises Unreachable."""
        self._answer()
        self.records[instance.instance_id] = instance

    def _answer(self) -> None:
        if not self.up:
            raise Unreachable("S3 does not answer")
