"""What the tests of data sets share: progress that is noted down, and folders of small files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from orchestrator.datasets.build import Built


class Noted:
    """Progress of each stage as (done, total), and what was said."""

    def __init__(self) -> None:
        self.stages: dict[str, list[tuple[int, int]]] = {}
        self.said: list[str] = []

    def at(self, stage: str, done: int, total: int) -> None:
        self.stages.setdefault(stage, []).append((done, total))

    def say(self, text: str) -> None:
        self.said.append(text)


class Builder(Protocol):
    """The fixture `build`."""

    def __call__(
        self,
        source: Path | str,
        name: str,
        *arguments: str,
        as_is: bool = True,
        originals: bool = True,
        force: bool = False,
    ) -> Built: ...


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write `files` by their names into `folder` and return it."""
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
