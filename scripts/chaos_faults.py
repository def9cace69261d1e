"""The faults of chaos: which there are, in which order a seed gives them, and how each is done to the sandbox.

What is expected of a fault says how long to watch, never how a run is judged: that is the audit's.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.errors import OrchError
from orchestrator.sandbox import control
from tests.e2e.sandbox_world import scheduler

NO_ROOM = "InsufficientInstanceCapacity"


@dataclass(frozen=True)
class Strike:
    """One fault to come: after `pause` seconds of training, `name` strikes the nodes of `ranks`."""

    name: str
    ranks: tuple[int, ...]
    pause: float
    seconds: float


@dataclass(frozen=True)
class Target:
    """Whom a strike meets: the sandbox of `home`, the instances in the order of the strike's ranks, and the run."""

    home: Path
    instances: Sequence[str]
    run_id: str


@dataclass(frozen=True)
class Fault:
    """A kind of fault. `restarts`: the training has to start again; otherwise it may well never notice."""

    act: Callable[[Target, Strike], None]
    restarts: bool = True


def _each(what: Callable[[Path, str, Strike], object]) -> Callable[[Target, Strike], None]:
    def act(target: Target, strike: Strike) -> None:
        for instance in target.instances:
            what(target.home, instance, strike)

    return act


def _disturb(kind: str, *, heals: bool = False) -> Callable[[Target, Strike], None]:
    return _each(
        lambda home, instance, strike: control.disturb(home, instance, kind, strike.seconds if heals else None)
    )


def _kill(home: Path, instance: str, strike: Strike) -> None:
    control.kill(home, instance)


def _kill_with(target: Target, strike: Strike, *, action: str, code: str, count: int) -> None:
    control.fault(target.home, action, code, count)
    _each(_kill)(target, strike)


def _refuse(target: Target, strike: Strike, *, actions: Sequence[str], code: str, count: int) -> None:
    for action in actions:
        control.fault(target.home, action, code, count)


def _interrupt(home: Path, instance: str, strike: Strike, *, share: float) -> None:
    control.interrupt(home, instance, 20.0 + share * strike.seconds)


def _one_by_one(target: Target, strike: Strike) -> None:
    """Take one, and another while the first is being replaced; one that is let go by then is as good as taken."""
    for instance in target.instances:
        with contextlib.suppress(OrchError):
            control.kill(target.home, instance)
        time.sleep(strike.seconds / 3)


def _kill_and_scheduler(target: Target, strike: Strike) -> None:
    """Take one, and the scheduler somewhere on the way to its replacement."""
    _each(_kill)(target, strike)
    time.sleep(strike.seconds / 3)
    _scheduler(target, strike)


def _scheduler(target: Target, strike: Strike) -> None:
    if (pid := scheduler(target.run_id)) is not None:
        os.kill(pid, signal.SIGKILL)


FAULTS: dict[str, Fault] = {
    "notice": Fault(_each(partial(_interrupt, share=2.0))),
    "late notice": Fault(_each(lambda home, instance, strike: control.interrupt(home, instance, 1.0))),
    "kill": Fault(_each(_kill)),
    "kill two": Fault(_each(_kill)),
    "kill three": Fault(_each(_kill)),
    "machine hangs": Fault(_disturb("freeze")),
    "machine pauses": Fault(_disturb("freeze", heals=True), restarts=False),
    "cut off": Fault(_disturb("partition")),
    "cut off a while": Fault(_disturb("partition", heals=True), restarts=False),
    "rank hangs": Fault(_disturb("hang")),
    "rank crashes": Fault(_disturb("crash")),
    "reboot": Fault(_disturb("reboot")),
    "no sshd a while": Fault(_disturb("stop-sshd", heals=True), restarts=False),
    "tmux killed": Fault(_disturb("kill-tmux"), restarts=False),
    "rebalance": Fault(_each(lambda home, instance, strike: control.rebalance(home, instance)), restarts=False),
    "scheduler killed": Fault(_scheduler, restarts=False),
    "launch reply lost": Fault(partial(_kill_with, action="RunInstances", code="ReplyLost", count=1)),
    "no room there": Fault(partial(_kill_with, action="RunInstances", code=NO_ROOM, count=1)),
    "kill in recovery": Fault(_one_by_one),
    "scheduler in recovery": Fault(_kill_and_scheduler),
    "EC2 throttles": Fault(
        partial(_refuse, actions=("DescribeInstances",), code="RequestLimitExceeded", count=6), restarts=False
    ),
    "S3 fails": Fault(
        partial(_refuse, actions=("PutObject", "GetObject", "ListObjectsV2"), code="InternalError", count=8),
        restarts=False,
    ),
}
_HOW_MANY = {"kill two": 2, "kill three": 3, "kill in recovery": 2}


def strikes(seed: int, nodes: int, only: Sequence[str] = ()) -> Iterator[Strike]:
    """Yield strikes for ever: every kind once, in an order drawn by the seed, then again in another order."""
    draw = random.Random(seed)  # noqa: S311 - equal seeds give equal faults
    while True:
        kinds = list(only or FAULTS)
        draw.shuffle(kinds)
        for name in kinds:
            ranks = draw.sample(range(nodes), min(_HOW_MANY.get(name, 1), nodes))
            yield Strike(name, tuple(ranks), draw.uniform(1.0, 5.0), draw.uniform(2.0, 7.0))
