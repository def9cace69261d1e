"""One run and everything around it on virtual time: EC2, S3, nodes, schedulers, users. What is in it decides nothing.

`World` puts the parts together, is what faults change, and keeps the truth that `invariants` judges by.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.aws.errors import LaunchRefused
from orchestrator.core.actions import Action
from orchestrator.core.bill import Bill
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts, PriceRow
from orchestrator.core.health import CONDEMNED_AFTER
from orchestrator.core.ids import Keys
from orchestrator.core.ledger import Entry, LedgerState, replay
from orchestrator.core.manifest import NAME
from orchestrator.core.spec import RunSpec
from orchestrator.errors import NoPermission, OrchError, Unreachable
from orchestrator.run.wish import ask_resume, ask_stop
from tests.sim import invariants
from tests.sim.agent import HEARTBEAT
from tests.sim.clock import Clock, Crashed, Process
from tests.sim.ec2 import Ec2, Machine
from tests.sim.faults import Swarm
from tests.sim.market import Market
from tests.sim.node import Node, Rules
from tests.sim.scheduler import Scheduler
from tests.sim.store import Store
from tests.sim.training import Gang, Script
from tests.sim.truth import Crash, Effect, Truth

T = TypeVar("T")

Mind = Callable[[RunSpec, LedgerState, Facts], tuple[Action, ...]]

# When nobody looked for so long, ranks may have waited in vain for those that nobody started.
LONG_UNSEEN = 300.0
CONDEMNED = CONDEMNED_AFTER.total_seconds()


@dataclass(slots=True)
class SchedulerRules:
    """What a scheduler holds to. Each is true in production; a mutant turns one off."""

    tokens: bool = True
    intents: bool = True


class World:
    """Run it with `run_until`; everything random in it comes from `seed`."""

    def __init__(self, seed: int, spec: Callable[[World], RunSpec], swarm: Swarm | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 - a seed, not a secret
        self.clock = Clock()
        self.store = Store(self.clock)
        self.market = Market(self.rng)
        self.ec2 = Ec2(self.clock, self.rng)
        self.nodes: dict[str, Node] = {}
        self.gangs: dict[tuple[int, tuple[str, ...]], Gang] = {}
        self.script = Script()
        self.node_rules = Rules()
        self.rules = SchedulerRules()
        self.swarm = swarm or Swarm()
        self.truth = Truth()
        self.spec = spec(self)
        self.crash: Crash | None = None
        self.labels: list[str] = []
        self.checks = invariants.Checks()
        self.full: dict[str, float] = {}
        self.tight: dict[str, tuple[float, int]] = {}
        self.expired_until = 0.0
        self.bad_boots = 0
        self.staleness = 0.0
        self.mind: Mind = decide
        self._schedulers: list[tuple[Scheduler, Process]] = []
        self._entries: list[Entry] = []
        self._state = LedgerState()
        self._ledger_read = False
        self._looked = 0.0
        self.ec2.lag = self._lag
        self.ec2.has_room = self._has_room
        self.ec2.room = self._room
        self.ec2.on_boot = self._boot
        self.ec2.on_end = self._end
        self.store.on_put = self._written
        self.swarm.arm(self)

    # Time.

    def run_until(self, until: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let events happen until the clock shows `until` or `done()`; tell whether it is done.

        Raises Violation when an invariant does not hold after one of them.
        """
        while not done():
            if not self.clock.step(until):
                return False
            self.checks.step(self)
        return True

    def note(self, what: str, text: str) -> None:
        """Write down something for whoever replays the seed."""
        self.truth.trouble.append((self.clock.now, what, text))

    # The ledger, as anybody may read it.

    @property
    def state(self) -> LedgerState:
        """What the ledger says now."""
        if not self._ledger_read:
            keys = sorted(self.store.keys(Keys(self.spec.run_id).ledger))
            for key in keys[len(self._entries) :]:
                self._entries.append(Entry.from_json(self.store.peek(key)))
            self._state, self._ledger_read = replay(self._entries), True
        return self._state

    @property
    def entries(self) -> Sequence[Entry]:
        """Every entry of the ledger."""
        assert self.state is not None
        return self._entries

    def _written(self, key: str) -> None:
        if "/ledger/" in key:
            self._ledger_read = False
            self.checks.ledger_grew = True
        elif key.endswith(NAME):
            self.checks.manifests.append(key)

    # Schedulers.

    def start_scheduler(self) -> Scheduler:
        """Start a scheduler, on whatever machine."""
        scheduler = Scheduler(self, f"machine-{len(self._schedulers) + 1}")
        self._schedulers.append((scheduler, Process(self.clock, scheduler.body())))
        return scheduler

    @property
    def living(self) -> list[tuple[Scheduler, Process]]:
        """The schedulers that have not ended."""
        return [item for item in self._schedulers if not item[1].dead]

    def kill_scheduler(self, away: float) -> bool:
        """Kill the oldest scheduler; another is started `away` seconds later."""
        living = self.living
        if not living:
            return False
        living[0][1].kill()
        self.clock.after(away, self.ensure_scheduler)
        return True

    def hold_scheduler(self, seconds: float) -> bool:
        """Hold the oldest scheduler where it is for `seconds`."""
        for scheduler, process in self.living[:1]:
            process.pause(seconds)
            scheduler.held_until = self.clock.now + seconds
            return True
        return False

    def is_dead(self, scheduler: Scheduler) -> bool:
        """Tell whether a scheduler is no more."""
        return all(item is not scheduler for item, _ in self.living)

    def bury(self, scheduler: Scheduler) -> None:
        """Let a scheduler be dead that died in an effect of its own."""
        for item, process in self._schedulers:
            if item is scheduler:
                process.kill()
        self._come_back_later()

    def _come_back_later(self) -> None:
        away = self.rng.choice([2.0, 30.0, 240.0]) if self.crash is None else 30.0
        self.clock.after(away, self.ensure_scheduler)

    def ensure_scheduler(self) -> None:
        """Start a scheduler if the run needs one and has none."""
        if not self.living and not self.state.closed:
            self.start_scheduler()

    def pause(self) -> float:
        """Return for how long the scheduler that asks is held where it is."""
        if self.swarm.strikes("pauses", self.rng, self.clock.now):
            return self.rng.choice([5.0, 25.0, 60.0, 200.0])
        return 0.0

    def decide(self, spec: RunSpec, state: LedgerState, facts: Facts) -> tuple[Action, ...]:
        """Call the real `decide`."""
        actions = self.mind(spec, state, facts)
        self.checks.decided(self, state, facts, actions)
        return actions

    def billed(self, facts: Facts, rows: tuple[PriceRow, ...], bill: Bill) -> None:
        """Take in a bill that a scheduler made."""
        self.checks.billed(self, facts, rows, bill)

    def effect(self, label: str, act: Callable[[], T]) -> T:
        """Let a scheduler do something to the outside, or fail at it. Raises OrchError, Crashed."""
        now, strikes = self.clock.now, self.swarm.strikes
        at = len(self.labels)
        self.labels.append(label)
        how = self.crash.how if self.crash is not None and self.crash.at == at else ""
        if how == "crash before" or strikes("dies at an effect", self.rng, now):
            self._come_back_later()
            raise Crashed
        self.api(label)
        if label.startswith("ssh:") and strikes("ssh fails", self.rng, now):
            raise Unreachable(f"{label}: no route")
        result = act()
        if not label.startswith("s3:l") and strikes("duplicate", self.rng, now):
            result = act()
        if how == "crash after" or strikes("dies at an effect", self.rng, now):
            self._come_back_later()
            raise Crashed
        if how == "stale view":
            self.ec2.lag = lambda what: 25.0
        if how == "missed view":
            for _, process in self.living:
                process.pause(100)
        if strikes("lost reply", self.rng, now):
            raise self._silence(label)
        return result

    def api(self, label: str) -> None:
        """Raise what a call to the cloud meets today. Raises OrchError."""
        now = self.clock.now
        if label.startswith("ssh:"):
            return
        if now < self.expired_until:
            if label == "ec2:launch":
                raise LaunchRefused("ExpiredToken", "expired", "the credentials have expired")
            raise NoPermission("the credentials have expired")
        if not label.startswith("s3:") and self.swarm.strikes("throttled", self.rng, now):
            raise self._silence(label, "throttled")

    def _silence(self, label: str, kind: str = "unreachable") -> OrchError:
        if label == "ec2:launch":
            return LaunchRefused("Throttled", kind, kind)  # type: ignore[arg-type]
        return Unreachable(f"no answer to {label}: {kind}")

    # What schedulers do to EC2.

    def launch(self, request: Mapping[str, Any], epoch: int) -> list[str]:
        """RunInstances; return the ids. Raises LaunchRefused."""
        made, fresh = self.ec2.run_instances(request)
        if fresh:
            self._did("launch", epoch, {"token": request["ClientToken"], "machines": made})
        return [machine.id for machine in made]

    def terminate(self, ids: Iterable[str], epoch: int) -> None:
        """TerminateInstances; ids that EC2 does not show yet are not found."""
        now = self.clock.now
        found = [i for i in ids if i in self.ec2.machines and self.ec2.machines[i].views[0][0] <= now]
        self._did("terminate", epoch, tuple(i for i in found if self.ec2.machines[i].usable))
        self.ec2.terminate(found)

    def _did(self, what: str, epoch: int, detail: Any) -> None:
        effect = Effect(what, epoch, detail)
        self.truth.effects.append(effect)
        self.checks.effects.append(effect)

    # Nodes.

    def node(self, instance_id: str) -> Node:
        """Return a node for a command to it. Raises Unreachable when there is none (any more)."""
        if instance_id not in self.nodes:
            raise Unreachable(f"{instance_id} does not answer")
        return self.nodes[instance_id]

    def gang(self, generation: int, ips: tuple[str, ...]) -> Gang:
        """Return the training that ranks of `generation` with these addresses share."""
        key = (generation, ips)
        if key not in self.gangs:
            self.gangs[key] = Gang(self.clock, self.rng, self.script, generation, len(ips))
            self.gangs[key].hangs = self.rng.random() < 0.1
        return self.gangs[key]

    def settle(self) -> None:
        """Let every agent have said what it would have said by now."""
        heard = self.clock.now - HEARTBEAT
        for node in self.nodes.values():
            agent = node.agent
            if agent is not None and agent.beat_at <= heard and node.reachable:
                agent.tick()

    def hurt(self, machine: Machine, what: str) -> None:
        """Write down that something was done to a machine."""
        for generation in {machine.generation, self.state.generation}:
            self.truth.hurts.setdefault(generation, set()).add(what)

    def missed(self, instance_id: str) -> None:
        """Take in that SSH did not reach a silent node: if its agent is gone too, it may be given up for that."""
        node = self.nodes.get(instance_id)
        if node is not None and node.agent is not None and self.clock.now - node.agent.silent_until < CONDEMNED:
            self.hurt(node.machine, "agent gone, no answer")

    def looked(self) -> None:
        """Take in that some scheduler saw everything now."""
        if self.clock.now - self._looked > LONG_UNSEEN:
            self.truth.hurts.setdefault(self.state.generation, set()).add("unseen")
        self._looked = self.clock.now

    def ended(self, scheduler: Scheduler) -> None:
        """Take in that a scheduler came to an end by itself; the one that replaced it may be dead by then."""
        self.note("ended", f"{scheduler.name}: {scheduler.ended}")
        self.checks.ended(self, scheduler)
        if not self.state.closed:
            self._come_back_later()

    def _boot(self, machine: Machine) -> None:
        def boot() -> None:
            if machine.usable:
                skewed = self.swarm.strikes("skewed clock", self.rng, self.clock.now)
                skew = self.rng.uniform(-4, 4) if skewed else 0.0
                failure = "the disk is full" if self.bad_boots else None
                if failure:
                    self.bad_boots -= 1
                    self.hurt(machine, "boot gave up")
                self.nodes[machine.id] = Node(
                    self.clock,
                    self.rng,
                    self.store,
                    machine,
                    self.node_rules,
                    self.gang,
                    self._power_off,
                    self.hurt,
                    skew,
                    failure,
                )

        self.clock.after(self.rng.uniform(5, 40), boot)

    def _power_off(self, machine: Machine) -> None:
        if machine.usable:
            self.hurt(machine, "powered off")
            self.ec2.end(machine, "Client.InstanceInitiatedShutdown")

    def _end(self, machine: Machine) -> None:
        if machine.id in self.nodes:
            self.nodes[machine.id].go_down()

    # Weather.

    def _lag(self, what: str) -> float:
        if what == "launch":
            return self.rng.uniform(1, 90) if self.swarm.strikes("hidden launch", self.rng, self.clock.now) else 0.0
        return self.rng.uniform(1, 30) if self.swarm.strikes("late view", self.rng, self.clock.now) else 0.0

    def behind(self) -> float:
        """Return how many seconds the replica is behind that answers a description now."""
        stale = self.swarm.strikes("stale read", self.rng, self.clock.now)
        self.staleness = self.rng.uniform(1, 20) if stale else 0.0
        return self.staleness

    def _has_room(self, zone: str, lifecycle: str) -> str | None:
        full = self.clock.now < self.full.get(zone, 0.0) and lifecycle == "spot"
        return "InsufficientInstanceCapacity" if full else None

    def _room(self, zone: str, lifecycle: str) -> int | None:
        until, nodes = self.tight.get(zone, (0.0, 0))
        return nodes if self.clock.now < until and lifecycle == "spot" else None

    def lose_s3(self, seconds: float) -> None:
        """Let S3 not answer for a while."""
        self.settle()
        self.truth.unreachable += seconds
        self.store.down_until = max(self.store.down_until, self.clock.now + seconds)

    # Users.

    def ask_stop(self) -> bool:
        """Ask for the end of the run, as `orch stop` does."""
        return self._wish(ask_stop)

    def ask_resume(self) -> bool:
        """Ask for another generation, as `orch resume` does, and see to it that there is a scheduler."""
        done = self._wish(ask_resume)
        self.ensure_scheduler()
        return done

    def _wish(self, ask: Callable[[Any, str, str], LedgerState]) -> bool:
        try:
            ask(self.store, self.spec.run_id, "user")
        except OrchError:
            return False
        return True
