"""Machine images as values, and when one is taken of a machine that was built. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from orchestrator.core.actions import Action, End
from orchestrator.core.estimates import SNAPSHOT_GIB_MONTH
from orchestrator.core.facts import Facts
from orchestrator.core.ledger import Entry, Verdict, meaning_of
from orchestrator.core.units import MicroUSD, iso


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
        """What keeping its snapshots costs a month at most: they hold only the blocks that were written."""
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


def next_step(
    facts: Facts, what: Literal["image", "snapshot"], made: tuple[str, str] | None, stop: Entry | None = None
) -> Literal["wait", "take", "done"] | Verdict:
    """Return what to do about what is taken of a machine on which every step is done; a verdict where there is none.

    `made` is the id of what was taken and its state, `stop` the wish to stop the run, which counts until that is whole.
    Nothing is taken before the machine's logs are in S3: it restarts while EC2 makes an image.
    """
    if stop is not None and (made is None or made[1] == "pending"):
        kind, why = meaning_of(stop)
        return Verdict(kind, f"{why}: no {what} was made", "build it again")
    if made is None:
        beacons = [node.beacon for node in facts.nodes.values() if node.beacon is not None]
        ended = [beacon for beacon in beacons if beacon.exit_code == 0 and beacon.synced]
        living = {item.instance_id for item in facts.instances if item.usable}
        if living:
            return "take" if any(beacon.instance_id in living for beacon in ended) else "wait"
        return Verdict("failed", f"the machine went away before the {what} was made of it", "build it again")
    identifier, state = made
    match state:
        case "available" | "completed":
            return "done"
        case "pending":
            return "wait"
    return Verdict("failed", f"EC2 could not make the {what}: {identifier} is {state}", "build it again")
