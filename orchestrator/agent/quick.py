"""Reading small objects from S3 without boto3, as the boot script does: for the one checkpoint that training waits for.

Importing boto3 takes half a second of CPU on every node of a gang, between a replacement's boot and its first step.
Raises whatever goes wrong as OSError or OrchError; whoever calls goes on with the real client then.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from orchestrator.core.manifest import Manifest
from orchestrator.errors import NotFound, Unreachable
from orchestrator.node.boot_script import Boot, Refused

# More is fetched faster by boto3, in parallel ranges.
MOST_BYTES = 32 * 2**20
_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")


class QuickStore:
    """The run's bucket, for reading."""

    def __init__(self, run: str, bucket: str, region: str) -> None:
        self._boot = Boot({"run": run, "bucket": bucket, "region": region}, os.environ)

    def get(self, key: str) -> bytes:
        """Return an object. Raises NotFound, Unreachable or OSError."""
        return self._fetch(key, None)

    def download_file(self, key: str, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Fetch an object into a file. Raises NotFound, Unreachable or OSError."""
        with path.open("wb") as file:

            def sink(piece: bytes) -> None:
                file.write(piece)
                if on_bytes is not None:
                    on_bytes(len(piece))

            self._fetch(key, sink)

    def _fetch(self, key: str, sink: Callable[[bytes], object] | None) -> bytes:
        try:
            return self._boot.s3("GET", key, sink=sink)
        except Refused as error:
            if error.status == 404:
                raise NotFound(f"{key} does not exist") from error
            raise Unreachable(str(error), "the real client is asked") from error


def suits(manifest: Manifest) -> bool:
    """Tell whether a checkpoint is fetched well this way: it is small, and its names need no escaping."""
    small = sum(file.size for file in manifest.files) <= MOST_BYTES
    return small and all(_PLAIN.fullmatch(file.path) for file in manifest.files)
