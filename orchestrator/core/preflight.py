"""What nodes find out about themselves and each other before the training starts, as it travels. Pure.

Imports nothing outside the standard library, since it also runs on the nodes. Which of them are unfit is
`core.fitness`'s, what that means to the run `core.health`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

State = Literal["ok", "warn", "fail"]
# A node that waits for so long for one that has also begun is cut off from it.
REACH_LIMIT = timedelta(seconds=90)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `fail` makes its node unfit, `warn` is told."""

    name: str
    state: State
    detail: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of one node. `links`: bytes/s to other ranks, the best of each; 0 where the link did not work.

    `looks` are all looks at any link of it that worked, none where nobody kept them. `answered` is false of a node that
    joined and then fell silent.
    """

    checks: tuple[Check, ...] = ()
    links: Mapping[int, float] = field(default_factory=dict)
    answered: bool = True
    looks: tuple[float, ...] = ()

    def looked_at(self, other: int, rate: float) -> Findings:
        """Return what is known after a look at the link to rank `other` that gave `rate` (bytes/s, 0: it failed)."""
        links = {**self.links, other: max(rate, self.links.get(other, 0.0))}
        return replace(self, links=links, looks=(*self.looks, rate) if rate else self.looks)

    @property
    def best(self) -> float | None:
        """The best link, bytes/s; None where none was tried."""
        return max(self.links.values(), default=None)


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a node's beacon says of its preflight.

    `checks` and `links` are the node's own. `all_reduce` (bytes/s, over the whole gang), `torch` (the same by
    torch.distributed), `unfit` (rank: why) and `notes` are of the gang and come with the end; `missing` are the ranks
    that have not come, as far as rank 0 knows. `expected` is what a link should give, 0 where that is not known.
    `seconds` is what it took after the last node had come, None before the end.
    """

    checks: tuple[Check, ...] = ()
    links: Mapping[int, float] = field(default_factory=dict)
    all_reduce: float | None = None
    torch: float | None = None
    expected: float = 0.0
    unfit: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` is its inverse."""
        value = {name: getattr(self, name) for name in self.__slots__}
        return value | {
            "checks": [[check.name, check.state, check.detail] for check in self.checks],
            "links": {str(rank): round(rate) for rank, rate in self.links.items()},
            "unfit": {str(rank): why for rank, why in self.unfit.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preflight:
        """Return what `to_json` wrote. Raises KeyError, TypeError or ValueError on anything else."""
        data = dict(value)
        return cls(
            checks=tuple(Check(str(name), state, str(detail)) for name, state, detail in data.pop("checks")),
            links={int(rank): float(rate) for rank, rate in data.pop("links").items()},
            unfit={int(rank): str(why) for rank, why in data.pop("unfit").items()},
            notes=tuple(map(str, data.pop("notes"))),
            missing=tuple(map(int, data.pop("missing"))),
            **data,
        )


def read_preflight(value: Mapping[str, Any] | None) -> Preflight | None:
    """Return what a beacon says of its node's preflight, None where it says nothing that can be read."""
    try:
        return None if value is None else Preflight.from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
