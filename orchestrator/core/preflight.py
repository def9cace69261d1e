"""What nodes find out about themselves and each other before the training starts, and which of them are unfit. Pure.

Imports nothing outside the standard library, since it also runs on the nodes: the node of rank 0 judges the gang, so
that a healthy one goes on without asking anybody; what a judgement means to the run is `core.health`'s.

A node is replaced for its links only when it is the odd one out. A gang that is slow as a whole, such as one that lacks
EFA or shares two cores, is told so and trains: the same machines elsewhere would be no faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

State = Literal["ok", "warn", "fail"]
# The best link of an odd node out is slower than this part of the gang's median, and of what its type should give.
ODD, POOR = 1 / 3, 1 / 2
# Seconds by which a node's clock may differ from the gang's: S3 refuses requests from 15 minutes on.
CLOCK_OFF, CLOCK_WRONG = 2.0, 600.0
# One TCP flow within a placement group gets no more (docs.aws.amazon.com, EC2 network bandwidth).
ONE_FLOW_GBIT = 10.0
# Rounds of pairs that every gang gets, and those in which whoever seems odd may still show better.
ROUNDS, MORE_ROUNDS = 3, 4
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

    `answered` is false of a node that joined and then fell silent.
    """

    checks: tuple[Check, ...] = ()
    links: Mapping[int, float] = field(default_factory=dict)
    answered: bool = True

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


def pairs(ranks: Sequence[int], turn: int) -> dict[int, int]:
    """Return who is measured with whom in round `turn`: a tournament, so that partners change; one may sit out."""
    circle: list[int | None] = [*ranks, *([None] if len(ranks) % 2 else [])]
    if len(circle) < 2:
        return {}
    rest = circle[1:]
    shift = turn % len(rest)
    table = [circle[0], *rest[shift:], *rest[:shift]]
    found: dict[int, int] = {}
    for left, right in zip(table[: len(table) // 2], reversed(table[len(table) // 2 :]), strict=True):
        if left is not None and right is not None:
            found |= {left: right, right: left}
    return found


def expected_rate(network_gbit: float) -> float:
    """Return what one link should give in bytes/s, 0 where the type's network is not known."""
    return min(network_gbit, ONE_FLOW_GBIT) * 1e9 / 8


def odd_ones(gang: Mapping[int, Findings], expected: float) -> dict[int, str]:
    """Return the ranks whose links are far behind those of the others, and how far; nobody in a gang of two.

    More than a third of a gang cannot be odd: then it is the gang that is slow.
    """
    bests = {rank: best for rank, found in gang.items() if found.answered and (best := found.best) is not None}
    if not bests:
        return {}
    usual = median(bests.values())
    slow = {r: b for r, b in bests.items() if b < usual * ODD and (not expected or b < expected * POOR)}
    silent = [rank for rank, found in gang.items() if not found.answered]
    if 3 * (len(slow) + len(silent)) > len(gang):
        return {}
    return {
        rank: f"its best link gives {_rate(best)}, those of the others {_rate(usual)}" for rank, best in slow.items()
    }


def judge(gang: Mapping[int, Findings], expected: float) -> dict[int, str]:
    """Return which ranks are unfit to train, and why."""
    found = odd_ones(gang, expected)
    silent = {rank: "it stopped answering" for rank, item in gang.items() if not item.answered}
    found |= silent if 2 * len(silent) < len(gang) else {}
    for rank, item in gang.items():
        faults = [f"{check.name}: {check.detail}" for check in item.checks if check.state == "fail"]
        if faults:
            found[rank] = "; ".join(faults)
    return dict(sorted(found.items()))


def gang_notes(gang: Mapping[int, Findings], all_reduce: float | None, expected: float) -> tuple[str, ...]:
    """Return what is to be said of the gang as a whole."""
    bests = [best for item in gang.values() if (best := item.best) is not None]
    notes = []
    if bests and expected and median(bests) < expected * POOR:
        notes.append(f"links give {_rate(median(bests))}, this type should give {_rate(expected)}")
    if all_reduce is not None and expected and all_reduce < expected * POOR:
        notes.append(f"all-reduce over all nodes gives {_rate(all_reduce)}, of {_rate(expected)} a link should give")
    return tuple(notes)


def clock_checks(clocks: Mapping[int, float]) -> dict[int, Check]:
    """Return how far each node's clock is from the gang's; `clocks` are seconds against one of them."""
    usual = median(clocks.values()) if clocks else 0.0
    found = {}
    for rank, clock in clocks.items():
        off = abs(clock - usual)
        state: State = "ok" if off < CLOCK_OFF else "warn" if off < CLOCK_WRONG else "fail"
        found[rank] = Check("clock", state, "right" if state == "ok" else f"{off:.0f} s off those of the other nodes")
    return found


def median(values: Iterable[float]) -> float:
    """Return the middle one of at least one value, the upper of two."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _rate(value: float) -> str:
    return f"{value / 1e9:.2f} GB/s" if value >= 1e9 else f"{value / 1e6:.0f} MB/s"
