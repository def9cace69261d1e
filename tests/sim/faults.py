"""What goes wrong in a seed: a random subset of the kinds of faults, each with a random rate, for half an hour.

Swarm testing (Groce et al., 2012): a seed in which nothing but two kinds of faults happen reaches states that one with
all of them at once never does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.core.ids import Keys
from orchestrator.core.manifest import NAME
from tests.core.worlds import ZONES
from tests.sim.clock import stamp
from tests.sim.market import TAKEN_BY_EC2

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

HORIZON = 1800.0

# Faults of a single call, by their highest rate.
CALLS = {
    "throttled": 0.15,
    "lost reply": 0.15,
    "ssh fails": 0.3,
    "duplicate": 0.2,
    "dies at an effect": 0.06,
    "pauses": 0.04,
    "late view": 0.6,
    "hidden launch": 0.8,
    "stale read": 0.3,
    "skewed clock": 0.5,
}
# Faults that happen at a moment, by the most of them in a seed.
EVENTS = {
    "interruption": 2,
    "advice": 2,
    "host dies": 1,
    "reboot": 1,
    "boot fails": 1,
    "network cut": 3,
    "agent dies": 3,
    "script breaks": 1,
    "s3 outage": 2,
    "expired": 2,
    "no room": 4,
    "little room": 4,
    "scheduler killed": 3,
    "second scheduler": 2,
    "laptop sleeps": 3,
    "price moves": 6,
    "stop": 1,
    "checkpoint damaged": 1,
    "long absence": 1,
}


@dataclass(slots=True)
class Swarm:
    """The faults of a seed: `rates` of those of a call, `moments` (time, kind) of the others; `happened` counts."""

    rates: dict[str, float] = field(default_factory=dict)
    moments: list[tuple[float, str]] = field(default_factory=list)
    until: float = HORIZON
    happened: dict[str, int] = field(default_factory=dict)

    @classmethod
    def draw(cls, rng: random.Random) -> Swarm:
        """Return the faults of one seed: each kind with probability one in three."""
        rates = {kind: rng.uniform(0.1, 1) * top for kind, top in CALLS.items() if rng.random() < 0.33}
        moments = [
            (rng.uniform(0, HORIZON) if rng.random() < 0.7 else rng.uniform(0, 240), kind)
            for kind, most in EVENTS.items()
            if rng.random() < 0.33
            for _ in range(rng.randint(1, most))
        ]
        return cls(rates, sorted(moments))

    def strikes(self, kind: str, rng: random.Random, now: float) -> bool:
        """Tell whether a fault of a call happens now, and count it."""
        rate = self.rates.get(kind)
        if rate is None or now >= self.until or rng.random() >= rate:
            return False
        self.happened[kind] = self.happened.get(kind, 0) + 1
        return True

    def arm(self, world: World) -> None:
        """Have the faults that happen at a moment happen."""
        for time, kind in self.moments:
            if time < self.until:
                world.clock.after(time, _strike(self, world, kind))


def _strike(swarm: Swarm, world: World, kind: str) -> Callable[[], None]:
    def strike() -> None:
        if HAPPENINGS[kind](world):
            swarm.happened[kind] = swarm.happened.get(kind, 0) + 1
            world.note("fault", kind)

    return strike


# What happens, and whether it did (there may be no node to hit).


def pick(world: World) -> Node | None:
    """Return some node that is up."""
    nodes = [node for node in world.nodes.values() if node.up and node.machine.usable]
    return world.rng.choice(nodes) if nodes else None


def interrupt(world: World, notice: bool | None = None) -> bool:
    """Let EC2 take a spot instance back, with two minutes' notice or (one time in three) without."""
    machines = [m for m in world.ec2.machines.values() if m.usable and m.lifecycle == "spot"]
    if not machines:
        return False
    machine = world.rng.choice(machines)
    told = world.rng.random() < 0.67 if notice is None else notice

    def take() -> None:
        if machine.usable:
            world.hurt(machine, "interruption")
            world.ec2.end(machine, TAKEN_BY_EC2)

    if told:
        world.hurt(machine, "interruption")
        machine.notice = stamp(world.clock.now + 120)
    world.clock.after(120 if told else 0, take)
    return True


def advise(world: World) -> bool:
    """Let EC2 say that it may soon want an instance back."""
    if (node := pick(world)) is None or node.agent is None:
        return False
    node.agent.advised = True
    return True


def kill_host(world: World) -> bool:
    """Let the hardware under a node fail."""
    if (node := pick(world)) is None:
        return False
    world.hurt(node.machine, "host died")
    world.ec2.end(node.machine, "Server.InternalError")
    return True


def reboot(world: World) -> bool:
    """Restart a node's machine."""
    if (node := pick(world)) is None:
        return False
    world.hurt(node.machine, "reboot")
    node.reboot()
    return True


def spoil_boot(world: World) -> bool:
    """Let the next machine that boots fail at it."""
    world.bad_boots += 1
    return True


def cut(world: World) -> bool:
    """Take a node's network away for up to five minutes; the shortest cut may be long enough to be given up for."""
    if (node := pick(world)) is None:
        return False
    seconds = world.rng.uniform(5, 300)
    world.hurt(node.machine, "network cut")
    world.truth.unreachable += seconds
    node.cut(seconds)
    return True


def kill_agent(world: World) -> bool:
    """Let a node's agent die; its shell starts another after three seconds."""
    if (node := pick(world)) is None or node.agent is None:
        return False
    node.agent.silent_until = world.clock.now + world.rng.uniform(3, 20)
    return True


def break_script(world: World) -> bool:
    """Let the script fail on one node."""
    if (node := pick(world)) is None or not node.trainers:
        return False
    rank = node.trainers[0]
    world.hurt(node.machine, "script broke")
    world.gang(rank.generation, rank.ips).end(rank, 1)
    return True


def lose_s3(world: World) -> bool:
    """Let S3 not answer for a while: seconds, or (one time in five) minutes."""
    seconds = world.rng.uniform(100, 400) if world.rng.random() < 0.2 else world.rng.uniform(3, 60)
    world.lose_s3(seconds)
    return True


def expire(world: World) -> bool:
    """Let the schedulers' credentials expire until somebody renews them."""
    world.expired_until = world.clock.now + world.rng.uniform(10, 300)
    return True


def fill(world: World) -> bool:
    """Let a zone have no room for a while."""
    world.full[world.rng.choice(ZONES)] = world.clock.now + world.rng.uniform(30, 600)
    return True


def crowd(world: World) -> bool:
    """Let a zone have room for a few machines at a time, for a while."""
    until = world.clock.now + world.rng.uniform(30, 900)
    world.tight[world.rng.choice(ZONES)] = (until, world.rng.randint(1, world.spec.num_nodes - 1))
    return True


def kill_scheduler(world: World) -> bool:
    """Kill a scheduler; somebody starts another, on whatever machine, some time later."""
    return world.kill_scheduler(world.rng.choice([5.0, 40.0, 300.0, 900.0]))


def sleep(world: World) -> bool:
    """Let the machine of a scheduler sleep: it and what it was sending stop where they are, and go on later."""
    return world.hold_scheduler(world.rng.choice([10.0, 30.0, 100.0, 250.0]))


def leave_alone(world: World) -> bool:
    """Kill every scheduler; nobody looks for more than an hour."""
    while world.kill_scheduler(world.rng.uniform(3900, 7200)):
        pass
    return True


def add_scheduler(world: World) -> bool:
    """Start another scheduler beside those there are."""
    world.start_scheduler()
    return True


def move_price(world: World) -> bool:
    """Let the spot price of a zone step up or down."""
    world.market.move(world.rng.choice(ZONES), world.clock.now, world.rng.uniform(0.6, 2.0))
    return True


def stop(world: World) -> bool:
    """Let the user ask for the end of the run."""
    return world.ask_stop()


def damage(world: World) -> bool:
    """Let the data of the newest checkpoint be lost: its manifest no longer fits, so it counts for nothing.

    Not while nodes restore: what some of them have already brought the others would never find.
    """
    trainers = (rank for node in world.nodes.values() for rank in node.trainers)
    if any(not world.gang(rank.generation, rank.ips).began for rank in trainers):
        return False
    keys = Keys(world.spec.run_id)
    steps = [int(key.split("/")[-2]) for key in world.store.keys(keys.checkpoints) if key.endswith(NAME)]
    if not steps:
        return False
    world.truth.damaged.add(max(steps))
    world.store.lose(keys.checkpoint(max(steps), "state.pt"))
    return True


HAPPENINGS: dict[str, Callable[[World], bool]] = {
    "interruption": interrupt,
    "advice": advise,
    "host dies": kill_host,
    "reboot": reboot,
    "boot fails": spoil_boot,
    "network cut": cut,
    "agent dies": kill_agent,
    "script breaks": break_script,
    "s3 outage": lose_s3,
    "expired": expire,
    "no room": fill,
    "little room": crowd,
    "scheduler killed": kill_scheduler,
    "second scheduler": add_scheduler,
    "laptop sleeps": sleep,
    "price moves": move_price,
    "stop": stop,
    "checkpoint damaged": damage,
    "long absence": leave_alone,
}
