"""The files of a folder and their digests, which are kept, so that a restart does not read everything again."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.core import manifest
from orchestrator.core.manifest import File
from orchestrator.errors import BadInput

CHUNK = 4 * 2**20
READERS = 4
# Files whose digests are worth a write of their own: reading one again would take about as long.
LARGE = 64 * 2**20
# Files that are named of those that cannot be taken.
SHOWN = 10


def list_files(folder: Path) -> dict[str, Path]:
    """Return every file under `folder` by its name there, less a manifest.

    Raises BadInput when there are none, and with those that would be missing: links to nothing, names no line can hold.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    found = {name: path for name, path in paths.items() if path.is_file()}
    found.pop(manifest.NAME, None)
    strange = [f"{name!a}: its name cannot be printed" for name in found if not name.isprintable()]
    lost = [name for name, path in paths.items() if path.is_symlink() and not path.exists()]
    strange += [f"{name}: a link to {paths[name].readlink()}, which is not there" for name in lost]
    if strange:
        more = (f"and {len(strange) - SHOWN} more",) if len(strange) > SHOWN else ()
        raise BadInput(
            f"{folder} has files that cannot be in a data set",
            "rename, mend or remove them",
            details=(*strange[:SHOWN], *more),
        )
    if not found:
        raise BadInput(f"{folder} holds no files", "name the folder with the data")
    return dict(sorted(found.items()))


class Digests:
    """The digests kept in `file`, each good for as long as size and time of the file it is of stay the same."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[str, list[int | str]] = {}
        try:
            self._known = json.loads(file.read_text())
        except (OSError, ValueError):  # none yet, or cut short: everything is read again
            self._known = {}

    def of(self, files: dict[str, Path], read: Callable[[int], None]) -> list[File]:
        """Return the files with size and sha256, in order; `read` is told of bytes as they are. Raises OSError."""

        def one(item: tuple[str, Path]) -> File:
            name, path = item
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            known = self._known.get(str(path), [])
            if known[:2] == stamp:
                read(status.st_size)
                return File(name, status.st_size, str(known[2]))
            digest = sha256_of(path, read)
            self._known[str(path)] = [*stamp, digest]
            if status.st_size >= LARGE:
                self._write()
            return File(name, status.st_size, digest)

        with ThreadPoolExecutor(READERS, thread_name_prefix="digest") as pool:
            found = list(pool.map(one, files.items()))
        self._write()
        return found

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        with self._lock:
            fresh.write_text(json.dumps(dict(self._known)))
            fresh.replace(self._file)


def sha256_of(path: Path, read: Callable[[int], None] = lambda _: None) -> str:
    """Return the sha256 (hex) of a file; `read` is told of bytes as they are. Raises OSError."""
    state = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            state.update(piece)
            read(len(piece))
    return state.hexdigest()


def total(files: Sequence[Path]) -> int:
    """Return the bytes of all files. Raises OSError."""
    return sum(path.stat().st_size for path in files)
