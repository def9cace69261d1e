"""Bills of many runs added up by name, user, zone or type. Pure; takes bills in JSON form, as reports keep them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from orchestrator.core.bill import OTHER
from orchestrator.core.units import MicroUSD, to_micro, usd

By = Literal["name", "user", "zone", "type"]
FIELD = {"zone": "zone", "type": "instance_type"}
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RunBill:
    """The bill of one run (`core.bill.Bill.to_json`) and whose it is; `user` "" where that is not known."""

    run_id: str
    name: str
    user: str
    bill: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Total:
    """What one group of runs, or of instances, cost; `seconds` are of instances, money is the high bound."""

    key: str
    seconds: int = 0
    spot: MicroUSD = 0
    on_demand: MicroUSD = 0
    runs: frozenset[str] = field(default_factory=frozenset)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "key": self.key,
            "runs": len(self.runs),
            "instance_seconds": self.seconds,
            "spot_usd": usd(self.spot),
            "on_demand_usd": usd(self.on_demand),
            "saving_usd": usd(self.on_demand - self.spot),
        }


def add_up(runs: Iterable[RunBill], by: By) -> tuple[Total, ...]:
    """Return the totals, the dearest first; together they are the sum of the bills to the micro-dollar.

    What is no instance belongs to no zone or type of a bill, so it is a group of its own there.
    """
    groups: dict[str, Total] = {}
    for part in (part for run in runs for part in _parts(run, by)):
        old = groups.get(part.key, Total(part.key))
        groups[part.key] = replace(
            old,
            seconds=old.seconds + part.seconds,
            spot=old.spot + part.spot,
            on_demand=old.on_demand + part.on_demand,
            runs=old.runs | part.runs,
        )
    return tuple(sorted(groups.values(), key=lambda total: (-total.spot, total.key)))


def _parts(run: RunBill, by: By) -> Iterator[Total]:
    runs = frozenset({run.run_id})
    whole = {"name": run.name, "user": run.user or UNKNOWN}.get(by)
    for item in run.bill["instances"]:
        key = whole or str(item[FIELD[by]])
        yield Total(key, int(item["seconds"]), to_micro(item["usd"]), to_micro(item["on_demand_usd"]), runs)
    for item in run.bill["other"]:
        amount = to_micro(item["usd"])
        yield Total(whole or OTHER, 0, amount, amount, runs)


def whole_of(totals: Iterable[Total]) -> Total:
    """Return the sum of totals."""
    found = list(totals)
    return Total(
        "total",
        sum(item.seconds for item in found),
        sum(item.spot for item in found),
        sum(item.on_demand for item in found),
        frozenset().union(*(item.runs for item in found)),
    )
