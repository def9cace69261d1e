"""The nodes of one generation as one thing: ranks, beacons, what they have in common. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter

from orchestrator.core.beacon import Beacon
from orchestrator.core.facts import Facts, Instance
from orchestrator.core.ledger import LedgerState


@dataclass(frozen=True, slots=True)
class Gang:
    """`instances`: those EC2 shows, by id. `ranks`: every member's, in order of rank. `beacons`: of this generation.

    `latest` holds the newest beacon of each member, whichever generation it speaks of.
    """

    instances: Mapping[str, Instance]
    ranks: Mapping[str, int]
    beacons: Mapping[str, Beacon]
    latest: Mapping[str, Beacon]

    @classmethod
    def of(cls, ledger: LedgerState, facts: Facts) -> Gang:
        """Return the members of the current generation: those kept, and those that its launch gave.

        Who is kept keeps its rank, unless the gang has fewer ranks now; the others take those that are free in the
        order of their old rank, new instances in that of AmiLaunchIndex (then id), which every observer computes alike.
        """
        kept, launched = ledger.kept, ledger.launched
        new = launched.instance_ids if launched is not None else ()
        members = {*new, *kept}
        instances = {item.instance_id: item for item in facts.instances if item.instance_id in members}

        def order(instance_id: str) -> tuple[int, str]:
            seen = instances.get(instance_id)
            return (seen.launch_index if seen else len(new), instance_id)

        size = len(kept) + len(new)
        staying = {i: rank for i, rank in kept.items() if rank < size or not ledger.manned}
        moving = sorted(kept.keys() - staying.keys(), key=lambda i: kept[i])
        free = (rank for rank in range(size) if rank not in staying.values())
        given = {**staying, **dict(zip([*moving, *sorted(new, key=order)], free, strict=False))}
        # Without anybody kept they are in order already.
        ranks = dict(sorted(given.items(), key=itemgetter(1))) if kept else given
        latest = {i: beacon for i in ranks if (node := facts.nodes.get(i)) and (beacon := node.beacon)}
        beacons = {i: beacon for i, beacon in latest.items() if beacon.generation == ledger.generation}
        return cls(instances, ranks, beacons, latest)

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
        return max((b.checkpoint_step for b in self.latest.values() if b.checkpoint_step is not None), default=None)
