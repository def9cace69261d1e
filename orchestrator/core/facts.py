"""What was observed: values that `decide`, `phase` and `bill` take. Pure; no module that makes them lives here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from orchestrator.core.beacon import Beacon
from orchestrator.core.units import MicroUSD, iso, parse_time

Lifecycle = Literal["spot", "on-demand"]
State = Literal["pending", "running", "shutting-down", "stopping", "stopped", "terminated"]
ResourceKind = Literal[
    "security-group",
    "placement-group",
    "key-pair",
    "volume",
    "network-interface",
    "spot-request",
    "image",
    "snapshot",
]
ALIVE: frozenset[str] = frozenset({"pending", "running", "stopping", "stopped", "shutting-down"})
USABLE: frozenset[str] = frozenset({"pending", "running"})
EC2_INTERRUPTED: frozenset[str] = frozenset(
    {"Server.SpotInstanceTermination", "Server.SpotInstanceShutdown", "Server.InsufficientInstanceCapacity"}
)
SHUT_ITSELF_DOWN = "Client.InstanceInitiatedShutdown"


@dataclass(frozen=True, slots=True)
class Volume:
    """An EBS volume of an instance; sizes in GiB.

    `iops` and `throughput` (MiB/s) are what was provisioned of a gp3 volume; `rate` (MiB/s) is that of its
    initialisation from a snapshot, 0 where none was paid for.
    """

    volume_id: str
    size_gib: int
    volume_type: str
    iops: int = 0
    throughput: int = 0
    rate: int = 0


@dataclass(frozen=True, slots=True)
class Instance:
    """One EC2 instance of a run as `DescribeInstances` shows it.

    `end_time` is the transition time EC2 gives once the instance is going or gone, `end_reason` its
    `StateReason.Code`. `launch_index` is AmiLaunchIndex: 0..n-1 within one RunInstances call.
    """

    instance_id: str
    instance_type: str
    zone: str
    lifecycle: Lifecycle
    state: State
    launch_time: datetime
    end_time: datetime | None = None
    end_reason: str | None = None
    private_ip: str | None = None
    public_ip: str | None = None
    generation: int = 1
    launch_index: int = 0
    token: str = ""
    volumes: tuple[Volume, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether it still exists for EC2 (anything but terminated)."""
        return self.state in ALIVE

    @property
    def usable(self) -> bool:
        """Whether it is pending or running."""
        return self.state in USABLE

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` is its inverse."""
        return {
            "instance_id": self.instance_id,
            "instance_type": self.instance_type,
            "zone": self.zone,
            "lifecycle": self.lifecycle,
            "state": self.state,
            "launch_time": iso(self.launch_time),
            "end_time": iso(self.end_time) if self.end_time else None,
            "end_reason": self.end_reason,
            "private_ip": self.private_ip,
            "public_ip": self.public_ip,
            "generation": self.generation,
            "launch_index": self.launch_index,
            "token": self.token,
            "volumes": [list(astuple(volume)) for volume in self.volumes],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Instance:
        """Return the instance written by `to_json`. Raises KeyError, TypeError or ValueError on anything else."""
        data = dict(value)
        data["launch_time"] = parse_time(data["launch_time"])
        data["end_time"] = parse_time(data["end_time"]) if data["end_time"] else None
        data["volumes"] = tuple(Volume(str(v[0]), int(v[1]), str(v[2]), *map(int, v[3:])) for v in data["volumes"])
        return cls(**data)


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One change of a spot price: from `time` on, an hour of `instance_type` in `zone` costs `price`."""

    zone: str
    instance_type: str
    time: datetime
    price: MicroUSD


@dataclass(frozen=True, slots=True)
class OnDemandPrice:
    """The hourly on-demand price of a type, with where it was read and when."""

    instance_type: str
    price: MicroUSD
    source: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Resource:
    """Something beside instances that carries the run's tag and must be gone at the end."""

    kind: ResourceKind
    id: str
    run: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """What a node itself has said, through S3."""

    host_keys: tuple[str, ...] = ()
    boot_failure: str | None = None
    beacon: Beacon | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything observed in one tick. `server_time` is S3's clock, never the local one.

    `watched_since` is since when this scheduler has looked without a gap; what was not heard before that, S3 or the
    scheduler itself may have missed (None: since ever).
    `mistrusted` are instances at whose address another host key answered than the node published.
    `instances` holds those EC2 shows and those it has forgotten but S3 has on record; `recorded` maps an instance id
    to the state under which it is on record. `cost_so_far` and `cost_per_second` are micro-dollars, high bounds;
    `cost_prepaid` is what of the former is for seconds that are yet to come, since at least a minute is charged.
    `started` is what this scheduler itself did over SSH in this generation, `asked` since when it tells each to start,
    `stops_sent` the generations that it asked to stop, `killed` (instance id, generation) whose training it ended; a
    successor does not know them and does them again, which nodes answer with "already". Of nodes asked because they
    fell silent or never spoke, `unanswered` are those that SSH did not reach the last time, `answering` those being
    asked, and those of which agent or training answered a moment ago; of `deserted` the machine did, and neither was
    there. `arming` are those whose timer is being armed anew, or was a moment ago.
    """

    server_time: datetime
    instances: tuple[Instance, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    resources: tuple[Resource, ...] = ()
    recorded: Mapping[str, str] = field(default_factory=dict)
    started: frozenset[str] = frozenset()
    asked: Mapping[str, datetime] = field(default_factory=dict)
    stops_sent: frozenset[int] = frozenset()
    killed: frozenset[tuple[str, int]] = frozenset()
    unanswered: frozenset[str] = frozenset()
    answering: frozenset[str] = frozenset()
    deserted: frozenset[str] = frozenset()
    arming: frozenset[str] = frozenset()
    mistrusted: frozenset[str] = frozenset()
    cost_so_far: MicroUSD = 0
    cost_per_second: MicroUSD = 0
    cost_prepaid: MicroUSD = 0
    watched_since: datetime | None = None

    def waited_since(self, moment: datetime) -> timedelta:
        """Return for how long somebody who saw everything has waited since `moment`."""
        return self.server_time - max(moment, self.watched_since or moment)
