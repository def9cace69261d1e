"""`run.json`: everything that was decided when a run was launched, frozen for its whole life. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from orchestrator.core.experiment import Experiment
from orchestrator.core.plan import Offer
from orchestrator.core.units import iso, parse_time
from orchestrator.core.volumes import DataVolume

VERSION = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who launched what: caller, machine, and the git commit and diff of the workdir ("" where there is none)."""

    user: str
    machine: str
    caller: str = ""
    commit: str = ""
    diff: str = ""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """The desired state of a run. `timer` is how long a node lives without a scheduler; `bundle` is a sha256.

    `prelude` is shell text that a node runs first of all, as root: only builds have one. `recipe` is the digest of the
    recipe whose image a run builds or checks. `volumes` are those that every node gets beside its root; `data_bytes`
    are of the data sets that nodes fetch.
    """

    run_id: str
    created: datetime
    cloud: str
    region: str
    bucket: str
    experiment: Experiment
    num_nodes: int
    procs_per_node: int
    offers: tuple[Offer, ...]
    on_demand: Mapping[str, Mapping[str, Any]]
    image: str
    vpc: str
    instance_profile: str
    ssh_cidr: str
    ssh_user: str
    ssh_port: int
    ssh_address: str
    public_key: str
    bundle: str
    timer: timedelta
    identity: Identity
    profile: str | None = None
    data_bytes: Mapping[str, int] = field(default_factory=dict)
    prelude: str = ""
    volumes: tuple[DataVolume, ...] = ()
    recipe: str = ""

    @property
    def name(self) -> str:
        """The name the user gave the run, or that of the experiment."""
        return self.experiment.name

    @property
    def min_nodes(self) -> int:
        """The least that the run trains on; as `num_nodes` unless that may vary."""
        return min(self.experiment.min_nodes or self.num_nodes, self.num_nodes)

    @property
    def is_snapshot_build(self) -> bool:
        """Whether it fills a volume of which a snapshot is taken; such a run is never gone on with."""
        return any(not volume.snapshot for volume in self.volumes)

    @property
    def build_command(self) -> str:
        """The command that builds what this run was to leave behind, in words; "" of a run that can be resumed.

        Only the process that began a build of an image or a snapshot takes and publishes it.
        """
        if self.is_snapshot_build:
            return f"`orch dataset snapshot {self.volumes[0].data}@{self.volumes[0].label}`"
        return "`orch ami build` with the same recipe" if self.recipe else ""

    def efa_of(self, instance_type: str, zone: str) -> int:
        """Return how many EFA interfaces a machine of this run was launched with."""
        return next((o.efa for o in self.offers if (o.instance_type, o.zone) == (instance_type, zone)), 0)

    def to_json(self) -> bytes:
        """Return the object stored at `run.json`."""
        value = {name: getattr(self, name) for name in self.__slots__}
        value |= {
            "version": VERSION,
            "created": iso(self.created),
            "experiment": self.experiment.to_json(),
            "offers": [offer.to_json() for offer in self.offers],
            "timer": self.timer.total_seconds(),
            "volumes": [volume.to_json() for volume in self.volumes],
            "identity": {name: getattr(self.identity, name) for name in Identity.__slots__},
        }
        return json.dumps(value, indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, body: bytes) -> RunSpec:
        """Return the spec in `body`. Raises ValueError when it is not one, or of a newer version."""
        try:
            value = json.loads(body)
            version = value.pop("version")
            if version != VERSION:
                raise ValueError(f"run.json has version {version}, this orch reads {VERSION}")
            value["created"] = parse_time(value["created"])
            value["experiment"] = Experiment.from_json(value["experiment"])
            value["offers"] = tuple(Offer.from_json(offer) for offer in value["offers"])
            value["volumes"] = tuple(DataVolume.from_json(volume) for volume in value.get("volumes", ()))
            value["timer"] = timedelta(seconds=value["timer"])
            value["identity"] = Identity(**value["identity"])
            return cls(**value)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a run.json: {error!r}") from error
