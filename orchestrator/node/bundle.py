"""The code every node gets: one archive of the agent and the user's working directory, named by its digest.

The same files give the same bytes, so that a bundle is uploaded once. Nothing is read into memory as a whole, nothing
of a working directory that is too large is read at all. May not import what it packs: libtmux and the trainer are found
on disk. A gzipped tar, since the node's own `tar` unpacks it in a quarter of the time that Python needs.
"""

from __future__ import annotations

import gzip
import hashlib
import heapq
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from orchestrator.core.units import format_size
from orchestrator.errors import BadInput
from orchestrator.node.ignore import is_ignored, read_rules

LIMIT = 2**30
AGENT_PACKAGES = ("core", "aws", "node", "agent")
BIGGEST = 8


@dataclass(frozen=True, slots=True)
class Bundle:
    """An archive on disk, without a name: it goes away with this object or its process, however that ends.

    `digest` is the sha256 (hex), `size` the bytes of it.
    """

    digest: str
    size: int
    file: IO[bytes] = field(repr=False, compare=False)

    def read(self) -> bytes:
        """Return the whole archive."""
        self.file.seek(0)
        return self.file.read()


@dataclass(frozen=True, slots=True)
class Item:
    """One file to pack: its name in the archive, where it lies, its bytes and whether it may be executed."""

    name: str
    path: Path
    size: int
    executable: bool


def build_bundle(workdir: Path | None, *, builtin: bool) -> Bundle:
    """Return the bundle of `workdir`, or with `builtin` that of an experiment that ships with `orch`.

    Raises BadInput when the working directory is over 1 GiB (its biggest entries are named) or holds what cannot be
    packed: files that cannot be read, links out of it, sockets and pipes (every one of them is named).
    """
    items: list[Item] = []
    if workdir is not None:
        walk = _Walk(workdir.resolve())
        if walk.faults:
            count = f"{len(walk.faults)} {'entry' if len(walk.faults) == 1 else 'entries'}"
            raise BadInput(
                f"{count} of {workdir} cannot be sent to the nodes",
                "mend them, or name them in .orchignore",
                details=tuple(sorted(walk.faults)),
            )
        items = walk.items
        _check_size(workdir, items)
    if builtin:
        items = [*items, *_package("trainer", "workdir/trainer")]
    return _write([*_agent(), *items])


class _Walk:
    """A walk through a working directory: the files to pack and what is wrong with others."""

    def __init__(self, root: Path) -> None:
        self.items: list[Item] = []
        self.faults: list[str] = []
        self._root = root
        self._rules = read_rules(root)
        self._enter(root, "", ())

    def _enter(self, folder: Path, inside: str, above: tuple[tuple[int, int], ...]) -> None:
        """Take what is under `folder`, which is `inside` relative to the root and lies in the folders `above`."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            info = folder.stat()
        except OSError as error:
            self.faults.append(f"{inside or '.'}: {error.strerror}")
            return
        identity = (info.st_dev, info.st_ino)
        if identity in above:
            self.faults.append(f"{inside}: a link to a folder it lies in")
            return
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            try:
                self._take(entry, name, (*above, identity))
            except OSError as error:
                self.faults.append(f"{name}: {error.strerror}")
            except (ValueError, RuntimeError) as error:
                self.faults.append(f"{name}: {error}")

    def _take(self, entry: os.DirEntry[str], name: str, above: tuple[tuple[int, int], ...]) -> None:
        path = Path(entry.path)
        if is_ignored(self._rules, name, folder=entry.is_dir()):
            return
        if entry.is_symlink() and not path.resolve(strict=True).is_relative_to(self._root):
            raise ValueError("a link out of the folder")
        if entry.is_dir():
            self._enter(path, name, above)
        else:
            self.items.append(_item(f"workdir/{name}", path))


def _item(name: str, path: Path) -> Item:
    """Return the item of a regular file. Raises OSError when it cannot be read, ValueError when it is none."""
    if not name.isprintable():
        raise ValueError(f"a name that cannot be printed ({path.name!a})")
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise ValueError("neither a file nor a folder")
    path.open("rb").close()
    return Item(name, path, info.st_size, bool(info.st_mode & stat.S_IXUSR))


def _check_size(workdir: Path, items: Iterable[Item]) -> None:
    total = 0
    entries: dict[str, int] = {}
    for item in items:
        total += item.size
        top = item.name.split("/")[1]
        entries[top] = entries.get(top, 0) + item.size
    if total > LIMIT:
        biggest = heapq.nlargest(BIGGEST, entries.items(), key=lambda entry: entry[1])
        raise BadInput(
            f"{workdir} holds {format_size(total)}, more than the {format_size(LIMIT)} that are sent to every node",
            "name what the nodes do not need in .orchignore, and put data into S3 (data: in the experiment)",
            details=tuple(f"{format_size(size):>10}  {name}" for name, size in biggest),
        )


def _agent() -> Iterator[Item]:
    """Yield the files of the agent: its packages of the orchestrator, and libtmux."""
    here = Path(__file__).parent.parent
    for name in ("__init__.py", "errors.py"):
        yield _item(f"agent/orchestrator/{name}", here / name)
    for package in AGENT_PACKAGES:
        yield from _sources(here / package, f"agent/orchestrator/{package}")
    yield from _package("libtmux", "agent/libtmux")


def _package(name: str, into: str) -> list[Item]:
    """Return the files of an installed package, found without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(f"the Python package {name} is not installed", "install orch again, with all its parts")
    return list(_sources(Path(spec.submodule_search_locations[0]), into))


def _sources(folder: Path, into: str) -> Iterator[Item]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".pyc", ".so"}:
            yield _item(f"{into}/{path.relative_to(folder)}", path)


def _write(items: Iterable[Item]) -> Bundle:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the bundle
    with (
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        archive.addfile(_folder("workdir"))
        for item in sorted(items, key=lambda item: item.name):
            _add(archive, item)
    file.flush()
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Bundle(digest, os.fstat(file.fileno()).st_size, file)


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def _add(archive: tarfile.TarFile, item: Item) -> None:
    """Add a file under fixed owner, time and mode, so that only names and contents decide the digest."""
    info = tarfile.TarInfo(item.name)
    info.size = item.size
    info.mode = 0o755 if item.executable else 0o644
    try:
        with item.path.open("rb") as body:
            archive.addfile(info, body)
    except OSError as error:
        raise BadInput(f"{item.path} changed while it was packed: {error}", "launch again") from error
