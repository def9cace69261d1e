"""Virtual time: events in order, and processes that sleep, pause and die. Knows nothing of what happens in them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from functools import lru_cache

from orchestrator.core.units import iso
from tests.core.worlds import T0

# A process yields the seconds it sleeps.
Body = Generator[float, None, None]


# At one moment everybody asks for the same time.
@lru_cache(maxsize=64)
def moment(seconds: float) -> datetime:
    """Return the time of day at which the virtual clock shows `seconds`."""
    return T0 + timedelta(seconds=seconds)


@lru_cache(maxsize=64)
def stamp(seconds: float) -> str:
    """Return that time of day as nodes write it."""
    return iso(moment(seconds))


class Clock:
    """Virtual seconds from 0. Idle time costs nothing: the clock jumps from event to event."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay: float, call: Callable[[], None]) -> None:
        """Have `call` called in `delay` seconds; calls of the same moment come in the order they were asked for."""
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, call))

    def step(self, until: float) -> bool:
        """Go to the next event and let it happen; tell whether there was one by `until`."""
        if not self._events or self._events[0][0] > until:
            self.now = max(self.now, until)
            return False
        self.now, _, call = heapq.heappop(self._events)
        call()
        return True


class Crashed(BaseException):
    """The process that raises this is dead from here on: no handler of the code in between may stop it."""


class Process:
    """A running body. `pause` holds it where it is, as SIGSTOP or a closed laptop would; `kill` ends it there."""

    def __init__(self, clock: Clock, body: Body) -> None:
        self._clock = clock
        self._body = body
        self._paused_until = 0.0
        self.dead = False
        clock.after(0.0, self._resume)

    def pause(self, seconds: float) -> None:
        """Let nothing of it happen for `seconds`."""
        self._paused_until = max(self._paused_until, self._clock.now + seconds)

    def kill(self) -> None:
        """End it without giving it a last word."""
        self.dead = True

    def _resume(self) -> None:
        if self.dead:
            return
        if self._clock.now < self._paused_until:
            self._clock.after(self._paused_until - self._clock.now, self._resume)
            return
        try:
            delay = next(self._body)
        except (StopIteration, Crashed):
            self.dead = True
        else:
            self._clock.after(delay, self._resume)
