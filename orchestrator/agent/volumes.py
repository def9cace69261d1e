"""Data on volumes of their own: mounted read-only by the label of their file system, or made, filled and sealed.

The programs are those of util-linux and e2fsprogs, as root by sudo. A volume is found by what lies on it, since the
names of devices differ from machine to machine. Formats nothing but the one disk of the size asked for that is blank.
"""

from __future__ import annotations

import getpass
import json
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.agent.config import DataSource, NodeConfig
from orchestrator.agent.fetch import NAMED, Corrupt, Say, missing
from orchestrator.agent.known import Known
from orchestrator.agent.listing import find_items, manifest_files
from orchestrator.agent.meter import Meter
from orchestrator.agent.staging import Opener
from orchestrator.core.dataset import lost
from orchestrator.core.manifest import File
from orchestrator.core.units import first_of, format_size
from orchestrator.core.volumes import MKFS
from orchestrator.errors import OrchError

COLUMNS = "PATH,SIZE,TYPE,FSTYPE,LABEL,MOUNTPOINT"
# A volume of the launch is there at boot; the kernel may still be reading what is on it.
APPEARS = 60.0
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device as `lsblk` shows it; `size` in bytes, texts are "" where there is nothing."""

    path: str
    size: int
    fstype: str
    label: str
    mountpoint: str
    blank: bool

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Disk:
        """Return an entry of `blockdevices`."""
        texts = {name: str(value.get(name) or "") for name in ("path", "fstype", "label", "mountpoint")}
        nothing = not (texts["fstype"] or texts["mountpoint"] or value.get("children"))
        return cls(size=int(value["size"]), blank=value.get("type") == "disk" and nothing, **texts)


def mount_all(config: NodeConfig, opened: Opener, say: Say) -> None:
    """Mount the volume of every data set that has one, once; one that is to be filled is made first.

    Raises OrchError: no such volume, or not the data set; OSError.
    """
    for source in config.data:
        where = config.data_folder / source.mount
        if source.blank_gib:
            _mount_blank(source, where, say)
        elif source.volume and (disk := _labelled(source)).mountpoint != str(where):
            # Asked for first: S3 may have to be asked again, and what is mounted is not looked at again. Of the objects
            # nothing is wanted: the volume has what they held, whatever has become of them.
            files = manifest_files(opened(source.bucket, config.region), source)
            _mount(disk, where, "ro,noatime")
            _check_sizes(files, where, source)
            say(f"data {source.name}: {len(files)} files on a volume of its own, read-only")


def seal(config: NodeConfig, opened: Opener, say: Say) -> None:
    """Unmount what was filled, once every byte of it was read back from the volume and found right. Raises as above."""
    for source in (item for item in config.data if item.blank_gib):
        where = config.data_folder / source.mount
        items = find_items(opened(source.bucket, config.region), source, config.data_folder)
        say(f"data {source.name}: reading all of it back from the volume")
        disk = _labelled(source)
        _sudo("umount", str(where))
        _mount(_labelled(source), where, "ro,noatime")
        totals = dict.fromkeys((item.phase for item in items), 0)
        for item in items:
            totals[item.phase] += item.size
        wrong = missing(items, Meter(config.staging_file, totals, say), Known(None))
        _sudo("umount", str(where))
        if wrong:
            names = first_of([item.key for item in wrong], NAMED)
            raise Corrupt(f"on the volume are not as they were written: {names}", "make the snapshot again")
        say(f"data {source.name}: {format_size(sum(totals.values()))} on {disk.path}, every digest right")


def _mount_blank(source: DataSource, where: Path, say: Say) -> None:
    """Mount the volume that is to be filled, for this user to write; made before, it is gone on with."""
    made = [disk for disk in _disks() if disk.label == source.volume]
    if not made:
        size = source.blank_gib * GIB
        blank = _await(lambda: [disk for disk in _disks() if disk.blank and disk.size == size])
        if len(blank) != 1:
            raise OrchError(f"{len(blank)} blank disks of {source.blank_gib} GiB are here, and it must be one")
        say(f"data {source.name}: making a file system on {blank[0].path}")
        # Nothing is written to it again once it is whole: a journal would only have to be replayed.
        _sudo("mkfs.ext4", "-q", *MKFS, "-m", "0", "-O", "^has_journal", "-L", source.volume, blank[0].path)
    if _mount(_labelled(source), where, "noatime"):
        _sudo("chown", getpass.getuser(), str(where))
        _sudo("rm", "-rf", str(where / "lost+found"))


def _mount(disk: Disk, where: Path, options: str) -> bool:
    """Mount a disk; False when it is there already."""
    if disk.mountpoint == str(where):
        return False
    where.mkdir(parents=True, exist_ok=True)
    _sudo("mount", "-o", options, disk.path, str(where))
    return True


def _labelled(source: DataSource) -> Disk:
    found = _await(lambda: [disk for disk in _disks() if disk.label == source.volume])
    if not found:
        raise OrchError(f"no volume with data {source.name} ({source.volume}) is on this machine", "launch it again")
    return found[0]


def _check_sizes(files: Collection[File], where: Path, source: DataSource) -> None:
    """Hold what is mounted against the manifest: names and sizes. The digests were right when it was sealed."""
    found = {file.path: where / file.path for file in files}
    sizes = {name: path.stat().st_size for name, path in found.items() if path.is_file()}
    if wrong := lost(files, "", sizes):
        raise Corrupt(
            f"the volume of data {source.name} is not what its manifest says: {first_of(wrong, NAMED)}",
            "make its snapshot again",
        )


def _await(look: Callable[[], list[Disk]]) -> list[Disk]:
    deadline = time.monotonic() + APPEARS
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(1.0)
    return found


def _disks() -> list[Disk]:
    value = json.loads(_run("lsblk", "--json", "--bytes", "--output", COLUMNS))
    return [Disk.from_json(item) for item in value["blockdevices"]]


def _sudo(*command: str) -> None:
    _run("sudo", *command)


def _run(*command: str) -> str:
    """Return what a program printed. Raises OrchError."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise OrchError(f"`{' '.join(command)}` ended with {done.returncode}: {said}")
    return done.stdout
