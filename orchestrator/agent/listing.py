"""What a data set in S3 is made of: its objects, and what its manifest says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from orchestrator.agent.config import DataSource
from orchestrator.agent.fetch import NAMED, Corrupt, Item
from orchestrator.agent.store import Store, Stored
from orchestrator.core.dataset import RENAME, cannot_hold, read_files
from orchestrator.core.manifest import NAME as MANIFEST
from orchestrator.core.manifest import File
from orchestrator.core.units import first_of
from orchestrator.errors import BadInput, NotFound


def find_items(store: Store, source: DataSource, folder: Path) -> list[Item]:
    """Return the objects of a data set and where they go.

    Raises NotFound where there are none, BadInput for keys that would leave the folder and a manifest that cannot be
    read, Corrupt when the objects are not those of the manifest.
    """
    found = {found.key.removeprefix(source.prefix): found for found in store.list(source.prefix)}
    found = {name: item for name, item in found.items() if name and not name.endswith("/")}
    if not found:
        raise NotFound(f"nothing at s3://{source.bucket}/{source.prefix}", f"see data.{source.name}.source")
    if fault := cannot_hold(found):
        raise BadInput(f"data {source.name} {fault}", RENAME)
    entries = read_manifest(store.get(found[MANIFEST].key), source.name) if MANIFEST in found else None
    target = folder / source.mount
    if entries is None:
        return [Item(store, item.key, item.size, item.etag, target / name) for name, item in found.items()]
    _hold_against(found, entries, source)
    return [
        Item(store, found[name].key, entry.size, found[name].etag, target / name, entry.sha256, entry.phase)
        for name, entry in entries.items()
    ]


def manifest_files(store: Store, source: DataSource) -> tuple[File, ...]:
    """Return the files that the manifest of a data set names, for one who has them from elsewhere than its objects.

    Raises NotFound without a manifest, BadInput where it cannot be read.
    """
    entries = read_manifest(store.get(source.prefix + MANIFEST), source.name)
    if entries is None:
        raise BadInput(f"the {MANIFEST} of data {source.name} names no files", "build the data set again")
    return tuple(entries.values())


def read_manifest(body: bytes, name: str) -> dict[str, File] | None:
    """Return the files of the manifest of data set `name`; None when `body` is some other JSON file of that name.

    Raises BadInput.
    """
    try:
        value = json.loads(body)
        if not isinstance(value, dict) or "files" not in value:
            return None
        return {file.path: file for file in read_files(value["files"])}
    except ValueError as error:
        raise BadInput(f"the {MANIFEST} of data {name} cannot be read: {error}", "build the data set again") from error


def _hold_against(found: Mapping[str, Stored], entries: Mapping[str, File], source: DataSource) -> None:
    """Raise Corrupt when objects are missing or not as long as the manifest says; all that are, are counted."""
    wrong = [f"{name} is missing" for name in entries if name not in found]
    wrong += [
        f"{name} has {found[name].size} bytes, by the manifest {entry.size}"
        for name, entry in entries.items()
        if name in found and found[name].size != entry.size
    ]
    if wrong:
        raise Corrupt(
            f"s3://{source.bucket}/{source.prefix} is not what its {MANIFEST} says: {first_of(wrong, NAMED)}",
            "build the data set again, or upload what is missing",
        )
