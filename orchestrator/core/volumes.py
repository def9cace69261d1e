"""Data sets on EBS volumes: their snapshots, the volume that each node gets of one, and how it is provisioned. Pure.

A snapshot holds one ext4 file system, whose label is the version of the data set: by it a node finds the volume,
whatever its device is called.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from typing import Any

from orchestrator.core.estimates import (
    GIB,
    GP3_IOPS,
    GP3_THROUGHPUT,
    SNAPSHOT_GIB_MONTH,
    ebs_charge,
    initialisation_charge,
)
from orchestrator.core.facts import Volume
from orchestrator.core.manifest import File
from orchestrator.core.units import MicroUSD, iso

MIB = 2**20
# What gp3 has (AWS EBS user guide, 2026): MiB/s, of which each takes four operations a second.
THROUGHPUTS = (GP3_THROUGHPUT, 150, 200, 250, 300, 500, 750, 1000, 1500, 2000)
IOPS_PER_MIB = 4
# Of what is above its base of 3,000, a volume has no more than so many operations a second for each GiB.
IOPS_PER_GIB = 500
RATES = tuple(range(100, 301, 25))
# Device names that EC2 recommends for data volumes; where the kernel puts them is another matter.
DEVICES = tuple(f"/dev/sd{letter}" for letter in "fghijklmnop")
# A set that the memory does not hold is read from the volume in every epoch: so many are taken to come.
EPOCHS = 10
# An inode for every 16 KiB, blocks of 4 KiB that files do not fill, and the file system's own tables.
OVERHEAD, BLOCK, TABLES = 1.03, 4096, 64 * MIB
INODE_SPAN = 16 * 1024
# Said to mkfs.ext4, which gives volumes of 4 TiB and more half as many inodes, and whose defaults an image may change.
MKFS = ("-b", str(BLOCK), "-i", str(INODE_SPAN))
# What a name takes in its folder beside its own bytes; blocks of folders are split in halves when they are full.
ENTRY, SPLIT = 12, 2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An EBS snapshot that holds data set `name` at `version`; `name` is "" until it is published. `run` is its build.

    `bytes` are those of the data set, `size_gib` is the volume it was taken of.
    """

    snapshot_id: str
    name: str
    version: str
    state: str
    created: datetime
    size_gib: int
    bytes: int
    run: str

    @property
    def monthly(self) -> MicroUSD:
        """What keeping it costs a month, of the blocks that were written."""
        return -(-SNAPSHOT_GIB_MONTH * self.bytes // GIB)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"created": iso(self.created)}


@dataclass(frozen=True, slots=True)
class DataVolume:
    """The volume that every node of a run gets for data set `data` (its key in the experiment).

    `snapshot` is "" for a blank one, which the run fills; `bytes` are those of the data set.
    """

    data: str
    snapshot: str
    label: str
    size_gib: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` is its inverse."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataVolume:
        """Return the volume written by `to_json`. Raises TypeError."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Gp3:
    """How a volume is provisioned: throughput in MiB/s, operations a second, MiB/s of its initialisation (0: none)."""

    throughput: int = GP3_THROUGHPUT
    iops: int = GP3_IOPS
    rate: int = 0


def newest(snapshots: Sequence[Snapshot], name: str, version: str) -> Snapshot | None:
    """Return the newest published snapshot of a version of a data set, whatever its state; None without one."""
    fitting = [item for item in snapshots if (item.name, item.version) == (name, version)]
    return max(fitting, key=lambda item: (item.state == "completed", item.created), default=None)


def size_for(files: Iterable[File]) -> int:
    """Return GiB of a volume whose file system holds these files: blocks and an inode for each, and for each folder."""
    taken = inodes = 0
    names = Counter({"": 0})  # bytes of them, by folder
    for file in files:
        taken += -(-file.size // BLOCK) * BLOCK
        inodes += 1
        path = file.path
        while path:
            folder, _, name = path.rpartition("/")
            known = folder in names
            names[folder] += ENTRY + len(name.encode())
            path = "" if known else folder
    taken += sum(-(-SPLIT * count // BLOCK) * BLOCK for count in names.values())
    inodes += len(names)
    return max(1, math.ceil((max(taken * OVERHEAD, inodes * INODE_SPAN) + TABLES) / GIB))


def provision(volume: DataVolume, price: MicroUSD, hours: float, ebs_mbyte: float, *, in_memory: bool) -> Gp3:
    """Return what costs least together with the machine that waits for it.

    `price` is of the machine, an hour; `hours` is how long it is kept; `ebs_mbyte` what the machine can read, MB/s (0:
    not known, then taken to be enough). `in_memory`: whether the machine's memory holds the set once it was read.
    """
    if not volume.snapshot:
        return Gp3()
    again = 0 if in_memory else EPOCHS - 1

    def total(gp3: Gp3) -> tuple[float, Gp3]:
        waited = arrival_seconds(volume, gp3, ebs_mbyte) + again * _seconds(volume, gp3.throughput, ebs_mbyte)
        return price * waited / 3600 + fee(volume, gp3, hours), gp3

    most = max(GP3_IOPS, IOPS_PER_GIB * volume.size_gib)
    speeds = [(mib, max(GP3_IOPS, IOPS_PER_MIB * mib)) for mib in THROUGHPUTS]
    choices = (Gp3(mib, iops, rate) for mib, iops in speeds if iops <= most for rate in RATES)
    return min(map(total, choices), key=lambda item: (item[0], astuple(item[1])))[1]


def arrival_seconds(volume: DataVolume, gp3: Gp3, ebs_mbyte: float) -> float:
    """Return how long it takes until a node has had every byte of the set once."""
    return _seconds(volume, min(gp3.throughput, gp3.rate or gp3.throughput), ebs_mbyte)


def fee(volume: DataVolume, gp3: Gp3, hours: float) -> MicroUSD:
    """Return what one such volume costs for so many hours, initialisation included."""
    made = Volume("", volume.size_gib, "gp3", gp3.iops, gp3.throughput, gp3.rate)
    return ebs_charge(made, round(hours * 3600)) + initialisation_charge(made)


def mapping(volume: DataVolume, gp3: Gp3, device: str) -> dict[str, Any]:
    """Return the entry of `BlockDeviceMappings` that makes it in a launch; it goes with its machine."""
    ebs: dict[str, Any] = {"VolumeSize": volume.size_gib, "VolumeType": "gp3", "DeleteOnTermination": True}
    ebs |= {"Iops": gp3.iops, "Throughput": gp3.throughput}
    # A volume is encrypted as its snapshot is.
    ebs |= {"SnapshotId": volume.snapshot} if volume.snapshot else {"Encrypted": True}
    return {"DeviceName": device, "Ebs": ebs | ({"VolumeInitializationRate": gp3.rate} if gp3.rate else {})}


def _seconds(volume: DataVolume, mib: float, ebs_mbyte: float) -> float:
    rate = mib * MIB
    return volume.bytes / (min(rate, ebs_mbyte * 1e6) if ebs_mbyte else rate)
