"""Data sets in the bucket: how they are named, where they lie, what their manifest says. Pure.

A data set is the objects under `datasets/<name>/<version>/`; the version is the beginning of its digest, so that the
same files always lie at the same place. `MANIFEST.json` is written last: without one the data set is not finished.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.core import manifest
from orchestrator.core.ids import NAME_RULE, is_name
from orchestrator.core.manifest import File
from orchestrator.core.units import counted, first_of, iso, parse_time

ROOT = "datasets/"
SCHEME = "dataset:"
VERSION_DIGITS = 16
# What the packed format (docs/data.md) calls its parts: what says how images lie is small, and needed at once.
ABOUT, INDEX = "dataset.json", "index.npz"
COPIES = "sz/"
CORRUPT = "corrupt.txt"  # the images that were left out and why, a line each; not there where there are none
_COPY = re.compile(rf"{COPIES}(\d+)/.+")
_PREFIX = re.compile(rf"{ROOT}[a-z][a-z0-9-]{{0,39}}/[0-9a-f]{{{VERSION_DIGITS}}}/")
# Objects that are named of those that no folder can hold.
NAMED = 5
RENAME = "rename them, or name a prefix without them"
_REFERENCE = re.compile(r"([^@]+)(?:@([0-9a-f]{4,64}))?")


@dataclass(frozen=True, slots=True)
class Reference:
    """A data set as a person names it: `NAME`, or `NAME@VERSION` with the beginning of a version ("": the newest)."""

    name: str
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return what `text` names, with or without `dataset:` before it. Raises ValueError."""
        _, at, version = text.partition("@")
        if at and not re.fullmatch(r"[0-9a-f]{4,64}", version):
            raise ValueError(f"{text!r}: {version!r} is no version: 4 to 64 digits of 0-9 and a-f")
        match = _REFERENCE.fullmatch(text.removeprefix(SCHEME))
        if match is None or not is_name(match[1]):
            raise ValueError(f"{text!r} names no data set: NAME or NAME@VERSION, a name being {NAME_RULE}")
        return cls(match[1], match[2] or "")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a data set was made of: `source` is the `listing_digest` of its source, `options` say how, in order.

    The same again would make the same data set.
    """

    source: str
    options: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"source": self.source, "options": list(self.options)}

    @classmethod
    def from_json(cls, value: Any) -> Origin | None:
        """Return the origin in `value`, None where that is none, as in manifests of before there were any."""
        try:
            return cls(str(value["source"]), tuple(str(word) for word in value["options"]))
        except (KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a data set in order of path, when it was built and from what.

    `origin` is None where nobody knows it (the source changed meanwhile); `stored` is the `listing_digest` of the
    objects that the files became, with S3's entity tags: it tells whether they are still the same, without reading one.
    """

    files: tuple[File, ...]
    created: datetime
    source: str
    origin: Origin | None = None
    stored: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """The sha256 (hex) of what the files are called and hold, wherever and whenever they were put together."""
        return digest_of(self.files)

    @property
    def version(self) -> str:
        """What the data set's folder is called."""
        return self.digest[:VERSION_DIGITS]

    def to_json(self) -> bytes:
        """Return the manifest as a JSON object."""
        files = [{"path": f.path, "size": f.size, "sha256": f.sha256, "phase": f.phase} for f in self.files]
        value: dict[str, Any] = {
            "files": files,
            "created": iso(self.created),
            "source": self.source,
            "digest": self.digest,
        }
        value |= {"origin": self.origin.to_json(), "stored": self.stored} if self.origin is not None else {}
        return json.dumps(value, indent=1).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Manifest:
        """Return the manifest in `body`. Raises ValueError, also when the digest is not that of the files."""
        try:
            data = json.loads(body)
            files = read_files(data["files"])
            origin, stored = Origin.from_json(data.get("origin")), str(data.get("stored", ""))
            made = cls(files, parse_time(str(data["created"])), str(data["source"]), origin, stored)
            said = str(data["digest"])
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise ValueError(f"not the manifest of a data set: {error!r}") from error
        if made.digest != said:
            raise ValueError("its digest is not that of the files it names")
        return made


def read_files(rows: Any) -> tuple[File, ...]:
    """Return the files named by a manifest's rows, in order of path; none leaves its folder. Raises ValueError."""
    try:
        found = [File(str(f["path"]), int(f["size"]), str(f["sha256"]), int(f.get("phase", 0))) for f in rows]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the files of a data set: {error!r}") from error
    for file in found:
        file.check()
    return tuple(sorted(found, key=lambda file: file.path))


def digest_of(files: Iterable[File]) -> str:
    """Return the sha256 (hex) over paths, sizes and digests of `files`, in order of path."""
    rows = [[f.path, f.size, f.sha256] for f in sorted(files, key=lambda file: file.path)]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def listing_digest(rows: Iterable[tuple[str, int, str]]) -> str:
    """Return the sha256 (hex) over names, sizes and tags of files, in whatever order they come."""
    state = hashlib.sha256()
    for row in sorted(rows):
        state.update(json.dumps(row).encode() + b"\n")
    return state.hexdigest()


def prefix(name: str, version: str) -> str:
    """Return the prefix of a data set's keys."""
    return f"{ROOT}{name}/{version}/"


def manifest_key(name: str, version: str) -> str:
    """Return the key of the manifest that makes a data set exist."""
    return prefix(name, version) + manifest.NAME


def is_prefix(text: str) -> bool:
    """Tell whether `text` is the prefix of a data set's keys; what else lies under `datasets/` is none."""
    return _PREFIX.fullmatch(text) is not None


def named_by(source: str, bucket: str) -> tuple[str, str] | None:
    """Return name and version of the data set in `bucket` that lies at the s3:// URL `source`, None where none can."""
    where = f"s3://{bucket}/"
    prefix = f"{source.removeprefix(where).rstrip('/')}/" if source.startswith(where) else ""
    _, name, version, _ = prefix.split("/") if is_prefix(prefix) else ("", "", "", "")
    return (name, version) if name else None


def is_unfinished(prefix: str, keys: Collection[str]) -> bool:
    """Tell whether `prefix`, which ends with `/`, is that of a data set, and `keys`, all below it, have no manifest."""
    return is_prefix(prefix) and prefix + manifest.NAME not in keys


def lost(files: Iterable[File], prefix: str, sizes: Mapping[str, int]) -> list[str]:
    """Return the paths of the `files` below `prefix` that are gone or cut; `sizes` are the bytes of objects by key."""
    return [file.path for file in files if sizes.get(prefix + file.path) != file.size]


def how_damaged(files: Collection[File], wrong: Collection[str]) -> str:
    """Return in words what is wrong with a set of `files` of which those at the paths `wrong` are lost."""
    return f"is damaged: of {counted(len(files), 'file')} {len(wrong)} are gone or cut"


def unplaceable(names: Iterable[str]) -> list[str]:
    """Return what is wrong with the names of objects that are to become files of one folder, a phrase each."""
    found = dict.fromkeys(names)
    faults: list[str] = []
    folders: set[str] = set()
    for name in found:
        parts = [part for part in name.split("/") if part not in {"", "."}]
        plain = "/".join(parts)
        if name.startswith("/") or not parts or ".." in parts or "\0" in name:
            faults.append(f"{name!r} would leave its folder")
        elif plain != name and plain in found:
            faults.append(f"{name!r} is the same file as {plain!r}")
        while (plain := plain.rpartition("/")[0]) and plain not in folders:
            folders.add(plain)
    return faults + [f"{name!r} would be a file and a folder" for name in found if name in folders]


def cannot_hold(names: Iterable[str]) -> str:
    """Return why no folder can hold objects of these names, as what a data set does; "" when one can."""
    faults = unplaceable(names)
    return f"holds objects that no folder can: {first_of(faults, NAMED)}" if faults else ""


def find_phases(paths: Collection[str]) -> dict[str, int]:
    """Return in which phase a node needs each file: the smallest copies and all indexes in 0, the originals last.

    What is not in the packed format is needed all at once.
    """
    if ABOUT not in paths:
        return dict.fromkeys(paths, 0)
    sides = {path: int(match[1]) for path in paths if (match := _COPY.fullmatch(path))}
    order = {side: number for number, side in enumerate(sorted(set(sides.values())))}
    at_once = {path for path in paths if path.rpartition("/")[2] in {ABOUT, INDEX}}
    return {path: 0 if path in at_once else order.get(sides.get(path, -1), len(order)) for path in paths}
