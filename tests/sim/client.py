"""The bucket as a scheduler process reaches it: what it writes is an effect, at which the process may die."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.store import Listed

if TYPE_CHECKING:
    from tests.sim.world import World


class Client:
    """The bucket as one scheduler process reaches it: every write is an effect, at which it may die."""

    def __init__(self, world: World) -> None:
        self._world = world

    def put(self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        """As `Store.put`."""
        world = self._world
        label = "s3:" + key.split("/")[2]
        return world.effect(label, lambda: world.store.put(key, body, if_none_match=if_none_match, if_match=if_match))

    def get(self, key: str) -> bytes:
        """As `Store.get`."""
        return self._world.store.get(key)

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """As `Store.get_with_etag`."""
        return self._world.store.get_with_etag(key)

    def list(self, prefix: str) -> tuple[Listed, ...]:
        """As `Store.list`."""
        return self._world.store.list(prefix)
