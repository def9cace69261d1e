"""Checkpoints into S3: the data first, the manifest last. Without a manifest a checkpoint does not exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.agent.digest import sha256_of
from orchestrator.agent.store import Store
from orchestrator.core import manifest
from orchestrator.core.ids import Keys
from orchestrator.core.manifest import File, Manifest
from orchestrator.errors import NotFound, PreconditionFailed


class Checkpoints:
    """Watches ORCH_CHECKPOINT_DIR on the node of rank 0. `newest` is the newest step there that is complete in S3.

    A checkpoint is a folder named by its step; the training renames it to that when it is complete, and it never
    changes after that.
    """

    def __init__(self, folder: Path, keys: Keys, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._keys = keys
        self._say = say
        self._stored: set[int] = set()
        self.newest: int | None = None

    def sync(self, store: Store) -> bool:
        """Upload what is not in S3 yet, newest first, and tell whether all of it is. Raises OrchError or OSError."""
        for step in sorted(local_steps(self._folder) - self._stored, reverse=True):
            if self._upload(store, step):
                self._stored.add(step)
                self.newest = max(step, self.newest or 0)
        # A folder that went away meanwhile (the training keeps only its last few) is no longer wanted.
        return local_steps(self._folder) <= self._stored

    def _upload(self, store: Store, step: int) -> bool:
        """Tell whether the checkpoint is in S3 with its manifest now."""
        folder = self._folder / str(step)
        key = self._keys.manifest(step)
        try:
            made = make_manifest(folder, step)
            there = _get(store, key)
            if there == made.to_json():
                return True
            for file in made.files:
                store.upload_file(folder / file.path, self._keys.checkpoint(step, file.path))
        except FileNotFoundError:
            if folder.exists():
                raise
            return False
        try:
            # A manifest that says something else is of a checkpoint that could not be restored: this run trained those
            # steps again. Until it is replaced it does not fit its data, and so counts for nothing.
            store.put(key, made.to_json(), if_none_match=there is None)
        except PreconditionFailed:
            return False
        self._say(f"checkpoint {step} is in S3")
        return True


def local_steps(folder: Path) -> set[int]:
    """Return the steps of the complete checkpoints in a folder; an empty folder is none."""
    try:
        return {int(e.name) for e in folder.iterdir() if is_step(e.name) and e.is_dir() and any(e.iterdir())}
    except FileNotFoundError:
        return set()


def is_step(name: str) -> bool:
    """Tell whether a folder's name is a step: a number as `str` writes it."""
    return name.isascii() and name.isdigit() and str(int(name)) == name


def stored_steps(store: Store, keys: Keys) -> set[int]:
    """Return the steps that have a manifest in S3."""
    names = (item.key.removeprefix(keys.checkpoints).split("/") for item in store.list(keys.checkpoints))
    return {int(n[0]) for n in names if len(n) == 2 and n[1] == manifest.NAME and is_step(n[0])}


def make_manifest(folder: Path, step: int) -> Manifest:
    """Return the manifest of a folder: every file under it with size and digest. Raises OSError."""
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != manifest.NAME:
            files.append(File(name, path.stat().st_size, sha256_of(path)))
    return Manifest(step, tuple(files))


def _get(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key)
    except NotFound:
        return None
