"""Small values for tests of the pure core: a spec, a gang, and facts about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core.beacon import Beacon
from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import Facts, Instance, Node, Resource, Volume
from orchestrator.core.ledger import Entry, LedgerState, replay
from orchestrator.core.plan import Offer
from orchestrator.core.spec import Identity, RunSpec
from orchestrator.core.units import iso

T0 = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def offer(zone: str = "us-east-1a", price: int = 3_000_000, **changes: Any) -> Offer:
    made = Offer(
        "p3.16xlarge",
        zone,
        "spot",
        price,
        24_480_000,
        0.5,
        8 * price,
        8 * 24_480_000,
        f"subnet-{zone}",
        "L-7212CCBC",
        True,
    )
    return replace(made, **changes)


def spec(num_nodes: int = 2, offers: Sequence[Offer] = (), **experiment: Any) -> RunSpec:
    values = {
        "name": "tiny",
        "num_nodes": num_nodes,
        "resources": {"any_of": [{"instance_type": "p3.16xlarge"}]},
        "run": "hostname",
        "max_duration": "1h",
    } | experiment
    return RunSpec(
        run_id="tiny-20261120-120000-abcd",
        created=T0,
        cloud="sandbox",
        region="us-east-1",
        bucket="orch-1-us-east-1",
        experiment=Experiment.from_json(values),
        num_nodes=num_nodes,
        procs_per_node=8,
        offers=tuple(offers) or tuple(offer(zone) for zone in ZONES),
        on_demand={"p3.16xlarge": {"price": 24_480_000, "source": "test", "time": iso(T0)}},
        image="ami-1",
        vpc="vpc-1",
        instance_profile="orch-node",
        ssh_cidr="127.0.0.1/32",
        ssh_user="me",
        ssh_port=22,
        ssh_address="private",
        public_key="ssh-ed25519 AAAA",
        bundle="0" * 64,
        timer=timedelta(hours=1),
        identity=Identity("me", "here"),
    )


class Book:
    """A ledger being written."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, kind: Any, action: str, seconds: float = 0, /, **detail: Any) -> Book:
        self.entries.append(Entry(len(self.entries) + 1, at(seconds), 1, "test", kind, action, detail))
        return self

    def tried(  # noqa: PLR0917 - a launch in one line
        self,
        attempt: int,
        offer: int,
        status: str | None,
        code: str = "",
        ids: Sequence[str] = (),
        generation: int = 1,
        count: int | None = None,
        seconds: float = 0,
        **changes: Any,
    ) -> Book:
        where = {"generation": generation, "attempt": attempt, "offer": offer, "count": count, **changes}
        self.add("intent", "launch", seconds, **where, request={"ClientToken": str(attempt)})
        if status is not None:
            self.add(
                "outcome",
                "launch",
                seconds,
                generation=generation,
                attempt=attempt,
                status=status,
                code=code,
                message="",
                instance_ids=list(ids),
            )
        return self

    @property
    def state(self) -> LedgerState:
        return replay(self.entries)


RESOURCES = (
    Resource("key-pair", "key-1"),
    Resource("security-group", "sg-1"),
    Resource("placement-group", "pg-1"),
)


def instance(index: int, state: Any = "running", **changes: Any) -> Instance:
    made = Instance(
        f"i-{index}",
        "p3.16xlarge",
        "us-east-1a",
        "spot",
        state,
        T0,
        private_ip=f"127.16.0.{10 + index}",
        launch_index=index,
        volumes=(Volume(f"vol-{index}", 100, "gp3"),),
    )
    return replace(made, **changes)


def beacon(index: int, stage: Any = "running", seconds: float = 0, **changes: Any) -> Beacon:
    made = Beacon(f"i-{index}", index, 1, 1, "boot", iso(at(seconds)), stage, started=1.0)
    return replace(made, **changes)


def facts(
    seconds: float = 0,
    instances: Sequence[Instance] = (),
    beacons: Sequence[Beacon] = (),
    resources: Sequence[Resource] = RESOURCES,
    **changes: Any,
) -> Facts:
    nodes = {item.instance_id: Node(("ssh-ed25519 AAAA",)) for item in instances}
    nodes |= {b.instance_id: Node(("ssh-ed25519 AAAA",), None, b) for b in beacons}
    return replace(Facts(at(seconds), tuple(instances), nodes, tuple(resources)), **changes)
