"""What agent tests share: a node's folders, and S3 as a folder that can be made to fail."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.agent.config import NodeConfig
from orchestrator.core.contract import NodePaths
from orchestrator.errors import NotFound, PreconditionFailed, Unreachable

RUN = "demo-20260101-000000-abcd"
PATHS = NodePaths(RUN, 1)


@dataclass(frozen=True)
class Found:
    """An object in a listing."""

    key: str
    size: int
    etag: str


class FolderStore:
    """A bucket in a folder. `writes` are the keys written, in order; `failures` how many calls fail from now on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writes: list[str] = []
        self.failures = 0
        self.before_write: Callable[[str], None] = lambda _: None
        folder.mkdir(exist_ok=True)

    def put(self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        self._fail()
        self.before_write(key)
        path = self.folder / key
        if if_none_match and path.exists():
            raise PreconditionFailed(f"{key} is there")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        self.writes.append(key)
        return etag(body)

    def get(self, key: str) -> bytes:
        self._fail()
        try:
            return (self.folder / key).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            raise NotFound(f"{key} does not exist") from None

    def read(self, key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        body = self.get(key)[start:stop]
        yield from (body[at : at + 3] for at in range(0, len(body), 3))

    def list(self, prefix: str) -> Iterator[Found]:
        self._fail()
        for path in sorted(self.folder.rglob("*")):
            key = path.relative_to(self.folder).as_posix()
            if path.is_file() and key.startswith(prefix):
                yield Found(key, path.stat().st_size, etag(path.read_bytes()))

    def upload_file(self, path: Path, key: str) -> None:
        self.put(key, path.read_bytes())

    def download_file(self, key: str, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        body = self.get(key)
        path.write_bytes(body)
        if on_bytes is not None:
            on_bytes(len(body))

    def keys(self, prefix: str = "") -> Sequence[str]:
        """Return the keys that are there."""
        return [found.key for found in self.list(prefix)]

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Unreachable("S3 is away")


def etag(body: bytes) -> str:
    """Return an entity tag as S3 gives it."""
    return f'"{hashlib.md5(body).hexdigest()}"'  # noqa: S324 - what S3 does


def node_config(home: Path, **changes: Any) -> NodeConfig:
    """Return the configuration of rank 0 of one node and make its folders."""
    values: dict[str, Any] = {
        "home": home,
        "run": RUN,
        "generation": 1,
        "rank": 0,
        "instance_id": "i-0",
        "num_nodes": 1,
        "bucket": "orch-1-us-east-1",
        "region": "us-east-1",
        "session": f"orch-{RUN}",
        "data": (),
        "restore_step": None,
        "trained": False,
        "beacon_seconds": 2.0,
        "grace_seconds": 120.0,
        "linger_seconds": 600.0,
        "node_ips": ("127.0.0.1",),
        "procs_per_node": 1,
        "device": "cpu",
        "preflight": "off",
        "network_gbit": 0.0,
        "efa": 0,
    }
    config = NodeConfig(**{**values, **changes})
    config.log_folder.mkdir(parents=True, exist_ok=True)
    config.checkpoint_folder.mkdir(parents=True, exist_ok=True)
    return config


def json_lines(body: bytes) -> list[Any]:
    """Return the values of a JSON-lines object."""
    return [json.loads(line) for line in body.splitlines()]
