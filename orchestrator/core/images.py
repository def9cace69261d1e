"""Machine images as values, and when one is taken of a machine that was built. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from orchestrator.core.actions import Action, End
from orchestrator.core.facts import Facts
from orchestrator.core.ledger import Verdict
from orchestrator.core.units import MicroUSD, iso

# EBS snapshots of the standard tier, a GiB-month (AWS's page on EBS pricing, us-east-1, 2026). A snapshot holds only
# the blocks that were written, so what a volume's whole size would cost is an upper bound.
SNAPSHOT_GIB_MONTH: MicroUSD = 50_000


@dataclass(frozen=True, slots=True)
class Image:
    """A machine image made by `orch`. `name` is that of its recipe, "" until it is published; `run` is its build."""

    image_id: str
    name: str
    digest: str
    state: str
    created: datetime
    snapshots: tuple[str, ...]
    size_gib: int
    run: str

    @property
    def monthly(self) -> MicroUSD:
        """What keeping its snapshots costs a month at most."""
        return SNAPSHOT_GIB_MONTH * self.size_gib

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        value = {name: getattr(self, name) for name in self.__slots__}
        return value | {"created": iso(self.created), "snapshots": list(self.snapshots)}


def newest(images: Sequence[Image], name: str, digest: str) -> Image | None:
    """Return the newest published image of a recipe with this digest; None: it has to be built."""
    fitting = [item for item in images if (item.name, item.digest, item.state) == (name, digest, "available")]
    return max(fitting, key=lambda item: item.created, default=None)


def is_finished(actions: Sequence[Action]) -> bool:
    """Tell whether a run is about to be called finished: the moment at which an image is taken of its machine."""
    return any(isinstance(item, End) and item.verdict.kind == "finished" for item in actions)


def next_step(facts: Facts, image: Image | None) -> Literal["wait", "take", "done"] | Verdict:
    """Return what to do about the image of a machine on which every step is done; a verdict where there will be none.

    Nothing is taken before the machine's logs are in S3: it restarts while EC2 makes the image.
    """
    if image is None:
        beacons = [node.beacon for node in facts.nodes.values() if node.beacon is not None]
        ended = [beacon for beacon in beacons if beacon.exit_code == 0 and beacon.synced]
        living = {item.instance_id for item in facts.instances if item.usable}
        if any(beacon.instance_id in living for beacon in ended):
            return "take"
        if living:
            return "wait"
        return Verdict("failed", "the machine went away before an image was made of it", "build it again")
    match image.state:
        case "available":
            return "done"
        case "pending":
            return "wait"
    return Verdict("failed", f"EC2 could not make the image: {image.image_id} is {image.state}", "build it again")
