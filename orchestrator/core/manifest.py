"""The manifest of a checkpoint: names, sizes and digests. A checkpoint without a verified one does not exist. Pure.

A data set has one too (`core.dataset`), of the same kind of files. Imports nothing outside the standard library, since
it also runs on the nodes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath

NAME = "MANIFEST.json"


@dataclass(frozen=True, slots=True)
class File:
    """One file: its path relative to what it is a part of, its size in bytes, its sha256 (hex).

    `phase` orders the files of a data set: a training begins with those of phase 0.
    """

    path: str
    size: int
    sha256: str
    phase: int = 0

    def check(self) -> None:
        """Raise ValueError for a path that would leave the folder it is to lie in."""
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\x00" in self.path:
            raise ValueError(f"manifest names a file outside its folder: {self.path!r}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of checkpoint `step`."""

    step: int
    files: tuple[File, ...]

    def to_json(self) -> bytes:
        """Return the manifest as a JSON object, files in order of path."""
        files = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in sorted(self.files, key=lambda f: f.path)]
        return json.dumps({"step": self.step, "files": files}, indent=1).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Manifest:
        """Return the manifest in `body`; paths that leave the checkpoint's folder are refused. Raises ValueError."""
        try:
            data = json.loads(body)
            files = tuple(File(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in data["files"])
            manifest = cls(int(data["step"]), files)
        except (KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a manifest: {error!r}") from error
        for file in files:
            file.check()
        return manifest


def newest(steps_with_manifest: set[int], rejected: set[int]) -> int | None:
    """Return the newest step that has a manifest and was not found corrupt, or None."""
    return max(steps_with_manifest - rejected, default=None)
