"""The nodes of one generation as one thing: ranks, beacons, what they have in common. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.beacon import Beacon
from orchestrator.core.facts import Facts, Instance
from orchestrator.core.ledger import Launch


@dataclass(frozen=True, slots=True)
class Gang:
    """`instances`: those EC2 shows, by id. `ranks`: every instance id of the launch. `beacons`: of this generation."""

    instances: Mapping[str, Instance]
    ranks: Mapping[str, int]
    beacons: Mapping[str, Beacon]

    @classmethod
    def of(cls, launched: Launch, facts: Facts) -> Gang:
        """Return the gang of a launch that gave instances.

        A rank is the position in the order of AmiLaunchIndex (then id), which every observer computes alike.
        """
        wanted = set(launched.instance_ids)
        instances = {item.instance_id: item for item in facts.instances if item.instance_id in wanted}

        def order(instance_id: str) -> tuple[int, str]:
            seen = instances.get(instance_id)
            return (seen.launch_index if seen else len(wanted), instance_id)

        ranks = {instance_id: rank for rank, instance_id in enumerate(sorted(wanted, key=order))}
        beacons = {
            instance_id: node.beacon
            for instance_id in ranks
            if (node := facts.nodes.get(instance_id)) is not None
            and node.beacon is not None
            and node.beacon.generation == launched.generation
        }
        return cls(instances, ranks, beacons)

    @property
    def size(self) -> int:
        """The number of nodes."""
        return len(self.ranks)

    @property
    def visible(self) -> bool:
        """Whether EC2 shows every instance, each with an address: only then are ranks and addresses known."""
        return len(self.instances) == self.size and all(i.private_ip for i in self.instances.values())

    @property
    def addresses(self) -> tuple[str, ...]:
        """Private addresses in order of rank (ORCH_NODE_IPS). Only when `visible`."""
        return tuple(str(self.instances[i].private_ip) for i in self.ranks)

    @property
    def training(self) -> bool:
        """Whether `run` began on the node of rank 0."""
        return any(
            b.rank == 0 and (b.started is not None or b.stage in {"running", "exited"}) for b in self.beacons.values()
        )

    @property
    def synced(self) -> bool:
        """Whether every node that reports has put everything into S3."""
        return all(b.synced for b in self.beacons.values())

    @property
    def checkpoint_step(self) -> int | None:
        """The newest step with a manifest in S3, as its writer says."""
        return max((b.checkpoint_step for b in self.beacons.values() if b.checkpoint_step is not None), default=None)
