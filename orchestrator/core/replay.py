"""One run replayed on traces: a discrete-event model of launches, interruptions, checkpoints and restarts. Pure.

The engine carries out whatever a policy (`core.policies`) wants; it never decides and knows nothing of money
(`Prices.charge` does). It models what recovery costs in time. It is not the scheduler: no request of it can fail, and
nothing is learnt later than it happens. docs/simulate.md lists the assumptions.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.policies import Job, Place, Policy, Situation
from orchestrator.core.traces import Rental, Sample

# Seconds; absorbs the rounding of sums of fractional speeds where a finish is rounded up to a whole second.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Chance:
    """What differs from one replay to the next: when it begins (trace seconds), and `luck`, draws from [0, 1).

    The interruption at a given moment comes without notice where its draw is below `Job.unannounced`: the same one for
    every policy, so that policies are compared in the same world.
    """

    start: int
    luck: tuple[float, ...] = (0.0,)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a replay went. Seconds of wall time in `seconds`, seconds of full-strength work in `progress` and `lost`.

    `interruptions` counts the times nodes were taken, however many at once; `starts` the times training began.
    """

    finished: bool
    seconds: int
    progress: float
    lost: float
    interruptions: int
    starts: int
    rentals: tuple[Rental, ...]


def replay(job: Job, policy: Policy, market: Sequence[Sample], chance: Chance, horizon: int) -> Outcome:
    """Return how `job` goes under `policy` from `chance.start` on, watched for `horizon` seconds.

    `market` is what `core.traces.samples` gives for the policy, oldest first, its first sample at or before the start.
    """
    run = _Run(job, policy.least, chance.luck)
    run.now = chance.start
    end = chance.start + horizon
    index = bisect_right(market, chance.start, key=lambda sample: sample.time) - 1
    while True:
        sample = market[index]
        run.lose(sample)
        run.obey(policy.decide(Situation(run.now - chance.start, run.progress, run.place), sample))
        index += 1
        until = min(end, market[index].time) if index < len(market) else end
        finished = run.train(until)
        if finished or run.now == end:
            break
    run.release(run.held, run.now)
    return Outcome(
        finished, run.now - chance.start, run.progress, run.lost, run.interruptions, run.starts, tuple(run.rentals)
    )


class _Run:
    """The state of one replay. Nodes are kept in groups by launch time, the newest last, and go newest first."""

    __slots__ = (
        "base", "begin", "groups", "held", "interruptions", "job", "joins", "least", "lost", "luck", "now", "place",
        "rentals", "speed", "starts", "training",
    )  # fmt: skip

    def __init__(self, job: Job, least: int, luck: Sequence[float]) -> None:
        self.job, self.least, self.luck = job, least, luck
        self.now = 0
        self.place: Place | None = None
        self.groups: list[tuple[int, int]] = []  # (launched, nodes)
        self.held = 0
        # Of the current stint: nodes that train (0: none does), when it begins, the work done before it, its speed.
        self.training = 0
        self.begin = 0
        self.base = 0.0
        self.speed = 0.0
        self.joins: int | None = None  # when nodes that were launched beside a training gang are up
        self.lost = 0.0
        self.interruptions = 0
        self.starts = 0
        self.rentals: list[Rental] = []

    @property
    def progress(self) -> float:
        """Work done, saved or not."""
        if not self.training or self.now <= self.begin:
            return self.base
        return min(self.base + (self.now - self.begin) * self.speed, float(self.job.work))

    def lose(self, sample: Sample) -> None:
        """Take the nodes that their zone no longer has; they are paid to the end of their notice."""
        if self.place is None or self.place.lifecycle != "spot":
            return
        gone = self.held - sample.capacity[self.place.zone]
        if gone <= 0:
            return
        self.interruptions += 1
        draw = self.luck[sample.time % len(self.luck)]
        abrupt = not self.job.notice or draw < self.job.unannounced
        if gone > self.held - self.training:
            self.stop(abrupt=abrupt)
        self.release(gone, self.now if abrupt else self.now + self.job.notice)

    def stop(self, *, abrupt: bool = False) -> None:
        """End the stint: all work is kept, or, where it ends without notice, what the last checkpoint holds."""
        made = max(0, self.now - self.begin) if self.training else 0
        unsaved = made % self.job.checkpoint_every if abrupt else 0
        self.base += (made - unsaved) * self.speed
        self.lost += unsaved * self.speed
        self.training = 0
        self.joins = None

    def obey(self, want: Place | None) -> None:
        """Launch, grow, shrink, move or let go, as the policy wants."""
        place = self.place
        if want == place and (want is None or self.training):
            return
        if want is None or place is None or (want.zone, want.lifecycle) != (place.zone, place.lifecycle):
            self.stop()
            self.release(self.held, self.now)
        elif want.nodes < self.held:
            surplus = self.held - want.nodes
            if surplus > self.held - self.training:
                self.stop()
            self.release(surplus, self.now)
        self.place = want
        if want is None:
            return
        if want.nodes > self.held:
            self.groups.append((self.now, want.nodes - self.held))
            self.held = want.nodes
            if self.training:
                self.joins = self.now + self.job.boot
        if not self.training and self.held >= self.least:
            self.start()

    def start(self) -> None:
        """Begin a stint with all nodes held, once they are up; a run that has a checkpoint loads it first."""
        self.training = self.held
        self.joins = None
        self.speed = self.job.speed(self.held)
        up = max(self.now, self.groups[-1][0] + self.job.boot)
        self.begin = up + (self.job.restart if self.base else 0)
        self.starts += 1

    def train(self, until: int) -> bool:
        """Go on to `until`, or to the end of the work if that comes first; return whether it did."""
        while self.training:
            next_stop = until if self.joins is None else min(until, self.joins)
            left = math.ceil((self.job.work - self.base) / self.speed - ROUNDING)
            if self.begin + left <= next_stop:
                self.now = self.begin + left
                return True
            if self.joins is None or self.joins > until:
                break
            self.now = self.joins
            self.stop()
            self.start()
        self.now = until
        return False

    def release(self, nodes: int, paid_until: int) -> None:
        """Give back the newest `nodes` nodes."""
        place = self.place
        self.held -= nodes
        while nodes and place is not None:
            launched, count = self.groups.pop()
            taken = min(nodes, count)
            nodes -= taken
            if count > taken:
                self.groups.append((launched, count - taken))
            self.rentals.append(Rental(place.zone, place.lifecycle, taken, launched, paid_until))
        if place is not None:
            self.place = place._replace(nodes=self.held) if self.held else None
        if self.held == self.training:
            self.joins = None
