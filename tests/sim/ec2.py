"""EC2 as the scheduler sees it: all-or-nothing launches by token, states with times, and reads that lag behind.

Every machine carries its true history; `describe` shows of it what has become visible, per instance.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.aws.codes import classify
from orchestrator.aws.errors import LaunchRefused
from orchestrator.core.facts import ALIVE, Instance, Resource, State, Volume
from orchestrator.core.ids import TAG_GENERATION, TAG_RUN
from tests.core.worlds import ZONES
from tests.sim.clock import Clock, moment
from tests.sim.market import TYPE, Used

# EC2 shows a terminated instance for about an hour more.
MEMORY = 3600.0
# For these ends EC2 states the time of the transition; for its own it does not.
TIMED = frozenset({"Client.UserInitiatedShutdown", "Client.InstanceInitiatedShutdown"})


@dataclass(eq=False, slots=True)
class Machine:
    """One instance as it truly is. `views`: what it looked like from which moment on an observer may see it."""

    id: str
    zone: str
    lifecycle: str
    token: str
    generation: int
    index: int
    run: str
    launch: float
    timer: float
    deadline: float
    state: State = "pending"
    end: float | None = None
    reason: str | None = None
    gone: float | None = None
    notice: str | None = None
    views: list[tuple[float, Instance]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether it still exists for EC2."""
        return self.state in ALIVE

    @property
    def usable(self) -> bool:
        """Whether it is pending or running."""
        return self.end is None

    @property
    def used(self) -> Used:
        """What the meter needs to know of it."""
        return Used(self.zone, self.lifecycle, self.launch, self.end, self.reason)

    def look(self) -> Instance:
        """Return it as EC2 would describe it without any lag."""
        return Instance(
            self.id,
            TYPE,
            self.zone,
            "spot" if self.lifecycle == "spot" else "on-demand",
            self.state,
            moment(math.floor(self.launch)),
            end_time=moment(math.floor(self.end)) if self.end is not None and self.reason in TIMED else None,
            end_reason=self.reason,
            private_ip=f"127.16.{self.generation}.{int(self.id[2:])}",
            generation=self.generation,
            launch_index=self.index,
            token=self.token,
            volumes=(Volume(f"vol-{self.id}", 100, "gp3"),),
        )


class Ec2:
    """Machines and resources. `lag(what)` returns for how many seconds a change (`launch` or `state`) stays unseen.

    `has_room(zone, lifecycle)` returns None, or the code of the refusal, `room` for how many machines there is some;
    `on_boot` and `on_end` tell the nodes.
    """

    def __init__(self, clock: Clock, rng: random.Random, memory: float = MEMORY) -> None:
        self._clock = clock
        self._rng = rng
        self._memory = memory
        self._tokens: dict[str, tuple[str, list[Machine]]] = {}
        self.machines: dict[str, Machine] = {}
        self.resources: dict[str, Resource] = {}
        self.lag: Callable[[str], float] = lambda what: 0.0
        self.has_room: Callable[[str, str], str | None] = lambda zone, lifecycle: None
        self.room: Callable[[str, str], int | None] = lambda zone, lifecycle: None
        self.on_boot: Callable[[Machine], None] = lambda machine: None
        self.on_end: Callable[[Machine], None] = lambda machine: None

    @property
    def live(self) -> list[Machine]:
        """The machines that still exist."""
        return [machine for machine in self.machines.values() if machine.state in ALIVE]

    def describe(self, ago: float = 0.0) -> list[Instance]:
        """Return the instances as they were seen `ago` seconds ago: as a replica shows them that is so far behind."""
        now = self._clock.now - ago
        seen = []
        for machine in self.machines.values():
            if machine.gone is not None and now > machine.gone + self._memory:
                continue
            shown = None
            for visible_from, view in machine.views:
                if visible_from <= now:
                    shown = view
            if shown is not None:
                seen.append(shown)
        return seen

    def run_instances(self, request: Mapping[str, Any]) -> tuple[list[Machine], bool]:
        """Launch what `request` asks for, or return what its token launched before (then False).

        Raises LaunchRefused.
        """
        token = str(request["ClientToken"])
        asked = json.dumps(request, sort_keys=True)
        if token in self._tokens:
            before, made = self._tokens[token]
            if before != asked:
                raise refusal("IdempotentParameterMismatch")
            return made, False
        zone = str(request["SubnetId"]).removeprefix("subnet-")
        lifecycle = "spot" if "InstanceMarketOptions" in request else "on-demand"
        if zone not in ZONES:
            raise refusal("InvalidSubnetID.NotFound")
        if (code := self.has_room(zone, lifecycle)) is not None:
            raise refusal(code)
        least, count = int(request["MinCount"]), int(request["MaxCount"])
        if (room := self.room(zone, lifecycle)) is not None:
            count = min(count, room)
        if count < least:
            raise refusal("InsufficientInstanceCapacity")
        tags = {pair["Key"]: pair["Value"] for pair in request["TagSpecifications"][0]["Tags"]}
        timer, deadline = map(float, request["UserData"].split())
        made = [self._launch(zone, lifecycle, token, tags, index, timer, deadline) for index in range(count)]
        self._tokens[token] = (asked, made)
        return made, True

    def terminate(self, ids: Iterable[str], reason: str = "Client.UserInitiatedShutdown") -> None:
        """Tell machines to go; those that are going or gone, or that EC2 does not find yet, are passed over."""
        for instance_id in ids:
            machine = self.machines.get(instance_id)
            if machine is not None and machine.usable:
                self.end(machine, reason)

    def end(self, machine: Machine, reason: str) -> None:
        """Let `machine` begin to go: from here on it costs nothing more."""
        machine.end, machine.reason = self._clock.now, reason
        self.on_end(machine)
        self._become(machine, "shutting-down")
        self._clock.after(self._rng.uniform(5, 60), lambda: self._be_gone(machine))

    def create(self, resource: Resource) -> None:
        """Make a resource, or find it there."""
        self.resources.setdefault(resource.kind, resource)

    def delete(self, resource: Resource) -> None:
        """Delete a resource unless something still uses it."""
        if not any(machine.state != "terminated" for machine in self.machines.values()):
            self.resources.pop(resource.kind, None)

    def _launch(  # noqa: PLR0917 - a machine's birth, in one place
        self, zone: str, lifecycle: str, token: str, tags: Mapping[str, str], index: int, timer: float, deadline: float
    ) -> Machine:
        name = f"i-{len(self.machines) + 10}"
        generation, now = int(tags[TAG_GENERATION]), float(int(self._clock.now))
        machine = Machine(name, zone, lifecycle, token, generation, index, tags[TAG_RUN], now, timer, deadline)
        self.machines[name] = machine
        machine.views.append((self._clock.now + self.lag("launch"), machine.look()))
        self._clock.after(self._rng.uniform(8, 40), lambda: self._boot(machine))
        return machine

    def _boot(self, machine: Machine) -> None:
        if machine.usable:
            self._become(machine, "running")
            self.on_boot(machine)

    def _be_gone(self, machine: Machine) -> None:
        machine.gone = self._clock.now
        self._become(machine, "terminated")

    def _become(self, machine: Machine, state: State) -> None:
        machine.state = state
        first = machine.views[0][0]
        machine.views.append((max(first, self._clock.now + self.lag("state")), machine.look()))


def refusal(code: str) -> LaunchRefused:
    """Return the refusal of a launch with EC2's `code`, of the kind that `aws.codes` gives it."""
    return LaunchRefused(code, classify(code), f"refused: {code}")
