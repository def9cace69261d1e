"""A gang trainer in virtual steps: what a script that obeys the node contract does, as far as others can see it.

All ranks of a generation must be there before the first step; a rank that goes takes the others with it, at once or (a
hanging collective) never; checkpoints come every `every` seconds on rank 0; the stop file is agreed on at a step.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.sim.clock import Clock

# A rendezvous that is not complete by then fails on every rank that waits in it (torchrun's own limit).
RENDEZVOUS_LIMIT = 900.0


@dataclass(frozen=True, slots=True)
class Script:
    """What a training is like; times in seconds. `looks`: at the stop file. `breaks_at`: the step of a bug in it."""

    steps: int = 900
    step: float = 1.0
    every: float = 120.0
    save: float = 3.0
    staging: float = 10.0
    setup: float = 10.0
    upload: float = 10.0
    looks: bool = True
    breaks_at: int | None = None


@dataclass(eq=False, slots=True)
class Rank:
    """The training of one generation on one node: the files that `run.sh` and the script keep there."""

    node: str
    rank: int
    generation: int
    ips: tuple[str, ...]
    restore_step: int | None
    born: float
    changed: Callable[[], None]
    word: str = "starting"
    alive: bool = True
    started: float | None = None
    exit: tuple[int, str] | None = None
    exit_time: float | None = None
    stop: bool = False
    stopped_step: int | None = None
    checkpoints: list[int] = field(default_factory=list)


class Gang:
    """The ranks of one generation that train together: those that were told the same addresses."""

    def __init__(self, clock: Clock, rng: random.Random, script: Script, generation: int, size: int) -> None:
        self._clock = clock
        self._rng = rng
        self.script = script
        self.generation = generation
        self.size = size
        self.ranks: dict[int, Rank] = {}
        self.hangs = False
        self.first_step = 0
        self._began: float | None = None
        self._ended: float | None = None
        self._stopping = False
        self.saved = 0
        self.restored: dict[int, int] = {}

    @property
    def stepping(self) -> bool:
        """Whether it takes steps now."""
        return self._began is not None and self._clock.now >= self._began and self._ended is None

    @property
    def step(self) -> int:
        """The step it has reached."""
        if self._began is None:
            return self.first_step
        until = self._clock.now if self._ended is None else self._ended
        made = max(0, int((until - self._began) / self.script.step))
        return min(self.script.steps, self.first_step + made)

    def join(self, rank: Rank, newest_here: int) -> None:
        """Let a rank come to the rendezvous; `newest_here` is the newest checkpoint on its node."""
        self.ranks[rank.rank] = rank
        self.restored[rank.rank] = newest_here
        if rank.rank == 0:
            self.first_step = self.saved = newest_here
        if len(self.ranks) == self.size and all(item.alive for item in self.ranks.values()):
            self._clock.after(self._rng.uniform(1, 5), self._begin)
        self._clock.after(RENDEZVOUS_LIMIT, lambda: self._give_up(rank))

    def gone(self, rank: Rank) -> None:
        """Take in that a rank is no more, its process or its machine: its peers fail, or hang in a collective."""
        if self._began is None or self._ended is not None:
            return
        self._end()
        if not self.hangs:
            for peer in self.ranks.values():
                self.end(peer, 1, self._rng.uniform(0.5, 4))

    @property
    def began(self) -> bool:
        """Whether its first step was made."""
        return self._began is not None

    def asked_to_save(self) -> None:
        """Take in that the save file is there: a checkpoint at the next step, and training goes on."""
        if self.script.looks and self.stepping and not self._stopping:
            self._keep(self.step)

    def asked_to_stop(self) -> None:
        """Take in that the stop file is there: at the next step all agree, save and exit."""
        if self.script.looks and self.stepping and not self._stopping:
            self._stopping = True
            self._clock.after(self.script.step, self._stop)

    def end(self, rank: Rank, code: int, delay: float = 0.0) -> None:
        """Let a rank end with `code` in `delay` seconds, and write it down."""

        def exit_now() -> None:
            if rank.alive:
                rank.alive, rank.exit, rank.exit_time = False, (code, rank.word), self._clock.now
                rank.changed()
                if code != 0 and not self._stopping:
                    self.gone(rank)

        if delay:
            self._clock.after(delay, exit_now)
        else:
            exit_now()

    def _begin(self) -> None:
        if self._began is not None or not all(item.alive for item in self.ranks.values()):
            return
        script = self.script
        self._began = self._clock.now
        self._clock.after(max(0, script.steps - self.first_step) * script.step, self._finish)
        self._clock.after(script.every, self._save)
        if script.breaks_at is not None and script.breaks_at > self.first_step:
            self._clock.after((script.breaks_at - self.first_step) * script.step, self._break)
        if any(rank.stop for rank in self.ranks.values()):
            self.asked_to_stop()

    def _save(self) -> None:
        if self.stepping and not self._stopping:
            self._keep(self.step)
            self._clock.after(self.script.every, self._save)

    def _keep(self, step: int) -> None:
        """Save `step`: the folder gets its name when it is complete."""
        first = self.ranks[0]

        def rename() -> None:
            if first.alive and step not in first.checkpoints:
                first.checkpoints.append(step)
                self.saved = max(self.saved, step)
                first.changed()

        self._clock.after(self.script.save, rename)

    def _stop(self) -> None:
        if not self.stepping:
            return
        step, first = self.step, self.ranks[0]
        self._end()
        self._keep(step)

        def say() -> None:
            if first.alive:
                first.stopped_step = step

        self._clock.after(self.script.save, say)
        for rank in self.ranks.values():
            self.end(rank, 1, self.script.save + self._rng.uniform(0.1, 3))

    def _finish(self) -> None:
        if not self.stepping or self._stopping:
            return
        self._end()
        self._keep(self.script.steps)
        for rank in self.ranks.values():
            self.end(rank, 0, self.script.save + self._rng.uniform(0.1, 3))

    def _break(self) -> None:
        if self.stepping:
            self.end(self.ranks[self._rng.randrange(self.size)], 1)

    def _give_up(self, rank: Rank) -> None:
        if self._began is None and rank.alive:
            self.end(rank, 1)

    def _end(self) -> None:
        if self._began is not None and self._ended is None:
            self._ended = self._clock.now
