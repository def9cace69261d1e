"""What many replays of one policy amount to: shares, percentiles, means. Pure.

A replay that did not finish within its horizon counts as later and dearer than any that did; a percentile that falls on
one is None. Otherwise a policy that seldom runs would look quick and cheap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.replay import Outcome
from orchestrator.core.units import MicroUSD, usd

TIME_PERCENTS = (50, 90, 99)
COST_PERCENTS = (50, 90)


@dataclass(frozen=True, slots=True)
class Summary:
    """A policy over all its replays. `zone` is that of policies which stay in one.

    `in_time` is the share that finished by the deadline (the horizon where there is none), `seconds` and `cost` are
    percentiles in the order of `TIME_PERCENTS` and `COST_PERCENTS`. Means per replay: `watched` (seconds to its end),
    `interruptions`, `starts` and `lost` (seconds of full-strength work). `useful` is full-strength work done over time
    passed, `saving` the share by which the median cost stays under that of on-demand. `best_zone`: the best of
    the zones its policy was tried in.
    """

    policy: str
    zone: str | None
    replays: int
    finished: float
    in_time: float
    seconds: tuple[int | None, ...]
    cost: tuple[MicroUSD | None, ...]
    watched: float
    interruptions: float
    starts: float
    lost: float
    useful: float
    saving: float | None
    best_zone: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: dollars as strings with six places, what is unknown null."""
        costs = [None if amount is None else usd(amount) for amount in self.cost]
        return {
            "policy": self.policy,
            "zone": self.zone,
            "best_zone": self.best_zone,
            "replays": self.replays,
            "finished": self.finished,
            "in_time": self.in_time,
            "seconds": {f"p{percent}": value for percent, value in zip(TIME_PERCENTS, self.seconds, strict=True)},
            "cost_usd": {f"p{percent}": value for percent, value in zip(COST_PERCENTS, costs, strict=True)},
            "watched_seconds": round(self.watched, 3),
            "interruptions": round(self.interruptions, 3),
            "starts": round(self.starts, 3),
            "lost_seconds": round(self.lost, 3),
            "useful": round(self.useful, 4),
            "saving": None if self.saving is None else round(self.saving, 4),
        }


def summarise(
    policy: str,
    zone: str | None,
    outcomes: Sequence[Outcome],
    costs: Sequence[MicroUSD],
    *,
    in_time_by: int,
    on_demand_cost: MicroUSD,
) -> Summary:
    """Return the summary of at least one replay; `costs` belong to `outcomes` in order."""
    count = len(outcomes)
    seconds = sorted(item.seconds for item in outcomes if item.finished)
    paid = sorted(cost for item, cost in zip(outcomes, costs, strict=True) if item.finished)
    median = percentile(paid, 50, count)
    return Summary(
        policy=policy,
        zone=zone,
        replays=count,
        finished=len(seconds) / count,
        in_time=sum(value <= in_time_by for value in seconds) / count,
        seconds=tuple(percentile(seconds, percent, count) for percent in TIME_PERCENTS),
        cost=tuple(percentile(paid, percent, count) for percent in COST_PERCENTS),
        watched=sum(item.seconds for item in outcomes) / count,
        interruptions=sum(item.interruptions for item in outcomes) / count,
        starts=sum(item.starts for item in outcomes) / count,
        lost=sum(item.lost for item in outcomes) / count,
        useful=sum(item.progress for item in outcomes) / sum(item.seconds for item in outcomes),
        saving=None if median is None or not on_demand_cost else 1 - median / on_demand_cost,
    )


def percentile(ordered: Sequence[int], percent: int, count: int) -> int | None:
    """Return the nearest-rank percentile of `count` values of which only `ordered`, the smallest, are known."""
    rank = math.ceil(percent * count / 100)
    return ordered[rank - 1] if rank <= len(ordered) else None


def best_of(summaries: Sequence[Summary]) -> Summary:
    """Return the one that finished most often, then soonest by the median, then most usefully."""
    return max(summaries, key=lambda item: (item.in_time, item.finished, -(item.seconds[0] or math.inf), item.useful))
