"""What the scheduler may do next: values that `decide` returns and `run.act` performs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from orchestrator.core.facts import Instance, Resource
from orchestrator.core.ledger import Recovery, Verdict


@dataclass(frozen=True, slots=True)
class Create:
    """Make one of the things a gang needs beside instances; idempotent by its name."""

    kind: Literal["key-pair", "security-group", "placement-group"]


@dataclass(frozen=True, slots=True)
class Launch:
    """Ask EC2 for `count` instances (None: the whole gang), all of them or none; with `least`, as many as it has.

    A `spare` is launched beside a gang that trains, to join it later. A `request` is that of an intent whose outcome is
    not known: sent again as it is.
    """

    generation: int
    attempt: int
    offer: int
    request: Mapping[str, Any] | None = None
    count: int | None = None
    least: int | None = None
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Start setup and run on a node that is ready, by SSH. `ranks` maps every instance of the gang to its rank."""

    instance_ids: tuple[str, ...]
    ranks: Mapping[str, int]
    generation: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the training to save and exit: the stop file on the node of rank 0."""

    instance_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End what is left of the training on these nodes, so that their agents upload and say so."""

    instance_ids: tuple[str, ...]
    generation: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask nodes that fell silent, by SSH, whether agent or training live there."""

    instance_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """Arm the dead-man timers of nodes anew, by SSH: none lives longer than `deadline` without a scheduler."""

    instance_ids: tuple[str, ...]
    generation: int
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Recover:
    """Record that this generation is given up, and how the next one is made of it."""

    recovery: Recovery


@dataclass(frozen=True, slots=True)
class Wish:
    """Ask of this run what a user could: the scheduler's own stop at a deadline or cap."""

    action: Literal["stop"]
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """Record how this generation ends."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Terminate:
    """Terminate instances; idempotent."""

    instance_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """Keep what EC2 says of an ended instance: it forgets within the hour, the bill needs it."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a resource of the run; "not yet" is no failure, the next tick tries again."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing is left: write the report and close the generation."""

    verdict: Verdict


Action = (
    Create | Launch | Start | Stop | Kill | Probe | Arm | Recover | Wish | End | Terminate | Record | Delete | Close
)
