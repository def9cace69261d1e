"""Data disks of the sandbox's hosts, and snapshots of them: folders in place of block devices, which would need root.

A disk is `disks/<volume>/` below its host: `size` in bytes, `label` and `fstype` once it is formatted, `mountpoint` and
`options` while it is mounted, `snapshot` where it was made of one, and its `files`. `snapshots/<snapshot>/` below the
sandbox's folder has label, fstype and files of a disk. Only files are read and written here; what the host itself does
with them is in `shims.DISK`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.sandbox.boundary import Disk


class HostDisks:
    """The disks of one sandbox; `folder` is the sandbox's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "snapshots"

    def attach(self, host: Path, disks: Sequence[Disk]) -> None:
        """Give a new host (its folder) its disks. Those made of one snapshot share its files."""
        for disk in disks:
            place = host / "disks" / disk.volume_id
            kept = self._folder / disk.snapshot_id
            if disk.snapshot_id and kept.is_dir():
                _copy(kept, place, os.link)
                (place / "snapshot").write_text(disk.snapshot_id)
            else:
                (place / "files").mkdir(parents=True)
            (place / "size").write_text(str(disk.size_gib * 2**30))

    def take(self, snapshot_id: str, host: Path, volume_id: str) -> None:
        """Copy what is on a disk of `host`; of the copy no file may be written. Raises OSError."""
        unfinished = self._folder / f"{snapshot_id}.new"
        _copy(host / "disks" / volume_id, unfinished, shutil.copy2)
        for file in (unfinished / "files").rglob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(0o444)
        unfinished.rename(self._folder / snapshot_id)

    def forget(self, snapshot_id: str) -> None:
        """Remove a snapshot; disks that were made of it keep their files."""
        shutil.rmtree(self._folder / snapshot_id, ignore_errors=True)


def _copy(disk: Path, to: Path, copy: Callable[[str, str], object]) -> None:
    """Make `to` of what lies on a disk, each file by `copy`, and of what it was formatted as."""
    to.mkdir(parents=True)
    shutil.copytree(disk / "files", to / "files", symlinks=True, copy_function=copy)
    for name in ("label", "fstype"):
        if (disk / name).exists():
            shutil.copy2(disk / name, to / name)
