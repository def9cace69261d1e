"""The ways of getting a data set onto the nodes of a run: how long each takes, what it costs, and which is taken. Pure.

Figures are estimates: of the network from what the instance type has, of EBS from what was provisioned, prices from
`core.estimates`. What is compared is the time until every byte is on every node; a training may begin before that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from orchestrator.core import catalog
from orchestrator.core.estimates import GP3_THROUGHPUT, fetch_charge
from orchestrator.core.plan import Offer, gp3_for, hours_of
from orchestrator.core.units import MicroUSD, format_duration, format_size, format_usd, per_hour, usd
from orchestrator.core.volumes import EPOCHS, MIB, DataVolume, Gp3, arrival_seconds, fee

Mode = Literal["stage", "ebs"]
# Of what a network has, ranged GETs from S3 get so much; and no more than so many bytes a second by 64 connections.
NETWORK_SHARE = 0.75
MOST_FROM_S3 = 64 * 90e6


@dataclass(frozen=True, slots=True)
class Way:
    """One way: seconds until all is there and micro-dollars for all nodes, machines that wait included.

    Both are None where the instance type does not say enough.
    """

    mode: Mode
    seconds: float | None
    cost: MicroUSD | None
    how: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, dollars as a string."""
        seconds = None if self.seconds is None else round(self.seconds)
        return {
            "mode": self.mode,
            "seconds": seconds,
            "usd": None if self.cost is None else usd(self.cost),
            "how": self.how,
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """How data set `data` gets onto the nodes, why, and what was compared."""

    data: str
    bytes: int
    mode: Mode
    why: str
    ways: tuple[Way, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ways = [way.to_json() for way in self.ways]
        return {"name": self.data, "bytes": self.bytes, "mode": self.mode, "why": self.why, "ways": ways}

    def __str__(self) -> str:
        ways = "; ".join(f"{way.mode} {_about(way)}{f' ({way.how})' if way.how else ''}" for way in self.ways)
        return f"{self.data}, {format_size(self.bytes)} to every node: {ways}; {self.mode}, {self.why}"


def stage_way(size: int, offer: Offer, nodes: int) -> Way:
    """Return what it takes to have every node fetch `size` bytes from S3."""
    known = catalog.TYPES.get(offer.instance_type)
    fits = catalog.holds_in_memory(offer.instance_type, size)
    network = known.network_gbit * 1e9 / 8 if known else 0.0
    rates = [min(network * NETWORK_SHARE, MOST_FROM_S3)] if network else []
    # Where it does not fit into memory it goes to the root volume, which has no more than a gp3 volume's base.
    disk = GP3_THROUGHPUT * MIB
    rates += [] if fits else [disk]
    if not rates:
        return Way("stage", None, None, f"what network {offer.instance_type} has is not known")
    seconds = size / min(rates)
    again = 0.0 if fits else (EPOCHS - 1) * size / disk
    cost = nodes * (per_hour(offer.price, math.ceil(seconds + again)) + fetch_charge(size))
    return Way("stage", seconds, cost, "" if fits else f"to disk, read in {EPOCHS} epochs")


def ebs_way(volume: DataVolume, offer: Offer, nodes: int, limit: timedelta) -> Way:
    """Return what it takes to give every node a volume of the snapshot."""
    known = catalog.TYPES.get(offer.instance_type)
    ebs = known.ebs_mbyte if known else 0.0
    gp3 = gp3_for(volume, offer, limit)
    seconds = arrival_seconds(volume, gp3, ebs)
    fits = catalog.holds_in_memory(offer.instance_type, volume.bytes)
    again = 0.0 if fits else (EPOCHS - 1) * arrival_seconds(volume, Gp3(gp3.throughput), ebs)
    cost = nodes * (per_hour(offer.price, math.ceil(seconds + again)) + fee(volume, gp3, hours_of(offer, limit)))
    how = f"gp3 of {volume.size_gib} GiB, {gp3.throughput} MiB/s, initialised at {gp3.rate} MiB/s"
    return Way("ebs", seconds, cost, how if fits else f"{how}, read in {EPOCHS} epochs")


def cheaper(ways: tuple[Way, Way]) -> tuple[Mode, str]:
    """Return which of two ways to take, and why: what costs less, then what is sooner."""
    stage, ebs = ways
    if stage.cost is None or ebs.cost is None or stage.seconds is None or ebs.seconds is None:
        return "stage", "since the two cannot be compared"
    best = min((stage, ebs), key=lambda way: (way.cost, way.seconds))
    other = ebs if best is stage else stage
    sooner = (best.seconds or 0) <= (other.seconds or 0)
    return best.mode, f"which costs less{' and is sooner' if sooner else ', though it takes longer'}"


def _about(way: Way) -> str:
    if way.seconds is None or way.cost is None:
        return "unknown"
    return f"{format_duration(way.seconds)} {format_usd(way.cost)}"
