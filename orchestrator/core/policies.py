"""Recovery policies: where a run should be, given how far it is, what it holds and what the zones have. Pure.

Each policy is one function from a `Situation` and a `Sample` to the `Place` it wants, None for nothing at all. It keeps
nothing between calls. They are for replays alone, and `core.replay` carries out what they want: real runs are decided
by `core.decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.core.facts import Lifecycle
from orchestrator.core.traces import Sample


class Place(NamedTuple):
    """So many nodes in a zone."""

    zone: int
    nodes: int
    lifecycle: Lifecycle


class Situation(NamedTuple):
    """A run at one moment: seconds since it began, seconds of full-strength work done, and the nodes it holds."""

    time: int
    progress: float
    place: Place | None


# In the order of the table; the names a user can ask for.
NAMES = ("gang", "failover", "replace", "elastic", "elastic-failover", "on-demand", "auto")

Decide = Callable[[Situation, Sample], Place | None]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, and what stands in its way. All times are whole seconds.

    `work` is the training time at full strength (`nodes`), `boot` passes from a launch to the start of `run` (setup
    included), `restart` from stopped to training again on machines that are up (processes, rendezvous, checkpoint).
    `unannounced` is the share of interruptions that come without a notice. m nodes train (m / nodes) ** `efficiency`
    times as fast as all of them.
    """

    work: int
    nodes: int
    boot: int
    restart: int
    checkpoint_every: int
    notice: int
    unannounced: float = 0.0
    efficiency: float = 1.0

    def speed(self, nodes: int) -> float:
        """Return work per second on `nodes` nodes."""
        return float((nodes / self.nodes) ** self.efficiency)


@dataclass(frozen=True, slots=True)
class Policy:
    """A named way to recover. `least` nodes train, fewer wait; `zones` are those it looks at.

    `clocked`: it must be asked at every sample, since what it wants depends on the time and not on capacity alone.
    """

    name: str
    decide: Decide
    least: int
    zones: tuple[int, ...]
    clocked: bool = False


def gang(nodes: int, zone: int) -> Policy:
    """All nodes in one zone or none; the whole gang starts again there when the zone has room for all of it."""

    def decide(now: Situation, sample: Sample) -> Place | None:
        return Place(zone, nodes, "spot") if sample.capacity[zone] >= nodes else None

    return Policy("gang", decide, nodes, (zone,))


def failover(nodes: int, zones: Sequence[int]) -> Policy:
    """All nodes in one zone; when it loses any, the whole gang moves to the cheapest zone with room for all of it."""

    def decide(now: Situation, sample: Sample) -> Place | None:
        return _stay_or_move(now, sample, nodes)

    return Policy("failover", decide, nodes, tuple(zones))


def replace(nodes: int, zones: Sequence[int]) -> Policy:
    """Like failover, but survivors that are the majority are kept, and waited with, while no zone has room for all.

    Once their own zone has room again only the lost nodes are launched.
    """

    def decide(now: Situation, sample: Sample) -> Place | None:
        whole = _stay_or_move(now, sample, nodes)
        survivors = now.place
        if whole is None and survivors is not None and 2 * survivors.nodes > nodes:
            return survivors
        return whole

    return Policy("replace", decide, nodes, tuple(zones))


def elastic(least: int, nodes: int, zone: int) -> Policy:
    """From `least` to `nodes` nodes of one zone, always as many as it has."""

    def decide(now: Situation, sample: Sample) -> Place | None:
        room = min(sample.capacity[zone], nodes)
        return Place(zone, room, "spot") if room >= least else None

    return Policy("elastic", decide, least, (zone,))


def elastic_failover(least: int, nodes: int, zones: Sequence[int]) -> Policy:
    """Failover, and where no zone has room for all: `least` to `nodes` nodes where the run is, else where most are.

    It moves from a part of the gang to all of it as soon as any zone has room, never from a part to a larger part.
    """

    def decide(now: Situation, sample: Sample) -> Place | None:
        whole = _stay_or_move(now, sample, nodes)
        if whole is not None:
            return whole
        here = now.place
        if here is None or sample.capacity[here.zone] < least:
            zone = max(sample.by_price, key=lambda zone: min(sample.capacity[zone], nodes))
        else:
            zone = here.zone
        room = min(sample.capacity[zone], nodes)
        return Place(zone, room, "spot") if room >= least else None

    return Policy("elastic-failover", decide, least, tuple(zones))


def on_demand(nodes: int) -> Policy:
    """All nodes on-demand, which are never taken back."""
    place = Place(0, nodes, "on-demand")

    def decide(now: Situation, sample: Sample) -> Place | None:
        return place

    return Policy("on-demand", decide, nodes, (0,))


def auto(job: Job, deadline: int, gap: int, zones: Sequence[int]) -> Policy:
    """Spot while it is to be had, on-demand where the deadline asks for it: "uniform progress", asked every `gap`.

    The rule is that of "Can't Be Late" (Wu et al., NSDI 2024) for a gang. Expected progress is the line from nothing at
    the start to all of the work at the deadline. Spot is kept while it lasts and taken when it is there. Without it,
    the run waits while it is ahead of the line and goes on-demand when behind; there it stays until it is ahead by two
    switches and spot is back. When the time left is only just enough, it goes on-demand until it is done.

    A switch costs boot and restart, and one checkpoint interval where notices may fail. Since a waiting run is asked
    again only after `gap`, that is added to the reserve; with it the deadline is always kept where on-demand keeps it.
    """
    switch = job.boot + job.restart + (job.checkpoint_every if job.unannounced or not job.notice else 0)
    steady = Place(0, job.nodes, "on-demand")

    def decide(now: Situation, sample: Sample) -> Place | None:
        spot = _stay_or_move(now, sample, job.nodes)
        held = now.place.lifecycle if now.place is not None else None
        if held == "spot" and spot == now.place:
            return spot
        if job.work - now.progress + 2 * switch + gap >= deadline - now.time:
            return steady
        if held == "on-demand":
            ahead = now.progress * deadline >= (now.time + 2 * switch) * job.work
            return spot if ahead and spot is not None else steady
        behind = now.progress * deadline < now.time * job.work
        return spot or (steady if behind else None)

    return Policy("auto", decide, job.nodes, tuple(zones), clocked=True)


def _stay_or_move(now: Situation, sample: Sample, nodes: int) -> Place | None:
    """Return the gang on spot where it is, else in the cheapest zone with room for all of it, else None."""
    here = now.place
    if here is not None and here.lifecycle == "spot" and sample.capacity[here.zone] >= nodes:
        return Place(here.zone, nodes, "spot")
    return next((Place(zone, nodes, "spot") for zone in sample.by_price if sample.capacity[zone] >= nodes), None)
