"""Bringing back the newest checkpoint that is what its manifest says; a corrupt one counts as none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.agent.checkpoints import local_steps, stored_steps
from orchestrator.agent.digest import sha256_of
from orchestrator.agent.store import Reader, Store
from orchestrator.core.ids import Keys
from orchestrator.core.manifest import File, Manifest
from orchestrator.errors import NotFound

FILES_AT_ONCE = 8


def restore(
    store: Store, keys: Keys, folder: Path, newest: int, say: Callable[[str], None], *, alone: bool
) -> int | None:
    """Put the newest verified checkpoint up to step `newest` into `folder` and return its step, None if there is none.

    All nodes of a gang must come to the same one, so what counts is what all of them can have: the copy in S3. Only a
    node that trains `alone` may use its own in place of it. Raises OrchError when S3 cannot be reached: that says
    nothing about the checkpoint.
    """
    for step in sorted((s for s in stored_steps(store, keys) if s <= newest), reverse=True):
        wrong = restore_step(store, keys, folder, step, lambda _: True, alone=alone)
        if wrong is None:
            say(f"checkpoint {step} is restored")
            return step
        say(f"checkpoint {step} cannot be used: {wrong}")
    return None


def restore_step(
    store: Reader, keys: Keys, folder: Path, step: int, suits: Callable[[Manifest], bool], *, alone: bool
) -> str | None:
    """Put the checkpoint of one step into `folder`; return what is wrong with it, None when it is there and verified.

    What is to be fetched must suit the store. Raises OrchError when S3 cannot be reached.
    """
    try:
        manifest = Manifest.from_json(store.get(keys.manifest(step)))
    except (ValueError, NotFound) as error:
        return str(error)
    if manifest.step != step or not manifest.files:
        return f"its manifest is of step {manifest.step}"
    target = folder / str(step)
    if alone and check(target, manifest.files) is None:
        return None
    return _fetch(store, keys, manifest, target) if suits(manifest) else "it is left to another client"


def drop_newer(folder: Path, step: int | None, say: Callable[[str], None]) -> None:
    """Remove the checkpoints after `step` (None: all of them): the other nodes do not have them, and start from `step`.

    They are of a generation that was given up before they got into S3.
    """
    for newer in sorted(local_steps(folder)):
        if step is None or newer > step:
            shutil.rmtree(folder / str(newer))
            say(f"checkpoint {newer} never got into S3 whole: it is gone, as on the nodes that were lost")


def _fetch(store: Reader, keys: Keys, manifest: Manifest, target: Path) -> str | None:
    """Fetch a checkpoint beside its place and put it there when it is right; return what is wrong with it, or None."""
    fresh = target.with_name(f".restore-{manifest.step}")
    shutil.rmtree(fresh, ignore_errors=True)

    def fetch(file: File) -> None:
        path = fresh / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        store.download_file(keys.checkpoint(manifest.step, file.path), path)

    try:
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(fetch, manifest.files))
    except NotFound as error:
        return error.message
    wrong = check(fresh, manifest.files)
    if wrong is None:
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    return wrong


def check(folder: Path, files: Iterable[File]) -> str | None:
    """Return what does not fit the manifest, None when all files are there with their sizes and digests."""
    for file in files:
        path = folder / file.path
        if not path.is_file():
            return f"{file.path} is missing"
        if path.stat().st_size != file.size:
            return f"{file.path} has {path.stat().st_size} bytes, not {file.size}"
        if sha256_of(path) != file.sha256:
            return f"{file.path} has another sha256"
    return None
