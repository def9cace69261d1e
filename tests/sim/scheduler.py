"""A scheduler process: `run.loop` and `run.act` as thinly as they can be said again, over the simulated world.

The real Lease, Ledger, decide, make_bill and request builder are used; only what talks to the outside is put in its
place. Between any two steps the process may be paused, before and after any effect it may die.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.aws.errors import LaunchRefused
from orchestrator.core import actions as do
from orchestrator.core.bill import make_bill
from orchestrator.core.facts import Facts, Instance, PriceRow, Resource
from orchestrator.core.ids import client_token, resource_name
from orchestrator.core.ledger import LedgerState
from orchestrator.core.phase import find_phase
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import MicroUSD
from orchestrator.errors import OrchError, StaleEpoch, Unreachable
from orchestrator.run.act import TRY_AGAIN, Errand, variations
from orchestrator.run.answers import Answers
from orchestrator.run.lease import Lease, Owner
from orchestrator.run.ledger import Ledger
from orchestrator.run.loop import LONGEST_BACKOFF
from orchestrator.run.nodes import Deserted, newest_step
from orchestrator.run.observe import Watch, merge
from orchestrator.run.request import run_instances_request
from orchestrator.run.userdata import timer_left
from tests.core.worlds import T0
from tests.sim.client import Client
from tests.sim.clock import Body, Crashed

if TYPE_CHECKING:
    from tests.sim.world import World

# Slower than production's, so that a seed takes milliseconds; a tick decides from facts, not from how often it comes.
QUICK_TICK = 3.0
CALM_TICK = 10.0
# Once all faults are over: what is left is to see the run to its end, without letting the lease run out.
LATE_QUICK_TICK = 6.0
LATE_TICK = 15.0
AFTER_ACTING = 0.5
POLL = 5.0
BILL_EVERY = 8.0
PRICES_EVERY = 60.0
JUDGED_EVERY = 60.0
QUICK = frozenset({"launching", "booting", "starting", "recovering", "terminating", "saving", "stopping"})


class Told(NamedTuple):
    """Which nodes were told what by SSH, or are being told, as facts say it."""

    started: frozenset[str]
    stops_sent: frozenset[int]
    killed: frozenset[tuple[str, int]]
    asked: frozenset[str]

    @classmethod
    def of(cls, errands: Collection[Errand], reaching: Collection[Errand], generation: int) -> Told:
        """Return what errands, done or (`reaching`) under way, are to `generation`."""
        return cls(
            frozenset(e.instance_id for e in errands if e.what == "start" and e.generation == generation),
            frozenset(e.generation for e in errands if e.what == "stop"),
            frozenset((e.instance_id, e.generation) for e in errands if e.what == "kill"),
            frozenset(e.instance_id for e in reaching if e.what == "probe"),
        )


class Scheduler:
    """One scheduler of the run, from its start to its end or death. `body()` is what it does."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self._spec: RunSpec = world.spec
        client: Any = Client(world)
        self._client = client
        self._lease = Lease(client, self._spec.run_id, Owner(name, 1, name))
        self._ledger = Ledger(client, self._spec.run_id, name)
        self._reaching: set[Errand] = set()
        self._reached: set[Errand] = set()
        self._answers = Answers()
        self._last_told: tuple[int, Told] | None = None
        self._watch = Watch()
        self._stale = False
        self.held_until = 0.0
        self._rows: tuple[PriceRow, ...] = ()
        self._priced = self._judged = self._billed = -PRICES_EVERY
        self._cost = (0, 0)
        self._ends: dict[str, datetime] = {}
        self.ended = ""

    @property
    def epoch(self) -> int:
        """The epoch under which it acts."""
        return self._lease.epoch

    def body(self) -> Body:
        """Take the lease and work until the generation is closed."""
        failures = 0
        try:
            while True:
                try:
                    if not self._lease.epoch:
                        yield from self._acquire()
                    if (yield from self._tick()):
                        break
                    failures = 0
                except StaleEpoch:
                    raise
                except OrchError as error:
                    self.world.note("trouble", f"{self.name}: {error.message}")
                    failures += 1
                    yield min(LONGEST_BACKOFF, 0.5 * 2**failures)
            with suppress(OrchError):
                self._lease.release(self.world.store.server_time())
            self.ended = "closed"
        except StaleEpoch as error:
            self.ended = error.message
        self.world.ended(self)

    def _acquire(self) -> Body:
        while not self._lease.try_acquire(self.world.store.server_time()):
            yield POLL
            if self._ledger.read().closed:
                raise StaleEpoch("another scheduler brought this run to its end")

    def _tick(self) -> Generator[float, None, bool]:
        """Do what is to be done now; tell whether the generation is closed."""
        self._fence()
        state = self._ledger.read()
        facts = self._observe(state.generation)
        if state.closed:
            return True
        actions = self.world.decide(self._spec, state, facts)
        for action in actions:
            yield from self._breathe()
            yield from self._perform(action, facts)
        yield AFTER_ACTING if actions else self._pause(state, facts)
        return False

    def _pause(self, state: LedgerState, facts: Facts) -> float:
        late = not self.world.swarm.until
        if find_phase(state, facts) in QUICK:
            return LATE_QUICK_TICK if late else QUICK_TICK
        return LATE_TICK if late else CALM_TICK

    def _breathe(self) -> Body:
        pause = self.world.pause()
        if pause:
            self.held_until = self.world.clock.now + pause
            yield pause

    def _observe(self, generation: int) -> Facts:
        world = self.world
        world.settle()
        now = world.store.server_time()
        if not world.store.up:
            raise Unreachable("S3 does not answer")
        world.api("describe")
        world.looked()
        records = world.store.records
        seen = [self._with_end(item, records, now) for item in world.ec2.describe(world.behind())]
        instances, since = merge(seen, records.values()), self._watch.look(now)
        cost, rate = self._cost_of(instances, now)
        if self._stale:
            raise StaleEpoch("a node obeys a newer scheduler")
        told = self._told(generation)
        self._answers.forget_all_but(item.instance_id for item in instances if item.usable)
        return Facts(
            server_time=now,
            instances=instances,
            nodes=dict(world.store.nodes),
            resources=tuple(world.ec2.resources.values()),
            recorded={key: item.state for key, item in records.items()},
            started=told.started,
            stops_sent=told.stops_sent,
            killed=told.killed,
            unanswered=self._answers.unanswered,
            answering=self._answers.answering(world.clock.now) | told.asked,
            deserted=self._answers.deserted(world.clock.now),
            cost_so_far=cost,
            cost_per_second=rate,
            watched_since=since,
        )

    def _told(self, generation: int) -> Told:
        """Return what nodes were told; it seldom changes between two looks."""
        if self._last_told is None or self._last_told[0] != generation:
            self._last_told = (generation, Told.of(self._reached | self._reaching, self._reaching, generation))
        return self._last_told[1]

    def _with_end(self, item: Instance, records: Mapping[str, Instance], now: datetime) -> Instance:
        if item.usable or item.end_time is not None:
            return item
        known = records.get(item.instance_id)
        end = known.end_time if known else None
        return replace(item, end_time=end or self._ends.setdefault(item.instance_id, now))

    def _cost_of(self, instances: tuple[Instance, ...], server_time: datetime) -> tuple[MicroUSD, MicroUSD]:
        """Return what was spent and what a second costs, (0, 0) where nobody asks."""
        now, world = self.world.clock.now, self.world
        alive = {item.instance_id for item in instances if item.alive}
        if alive and now - self._priced > PRICES_EVERY:
            self._fetch_prices()
            self._priced = now
        # Production computes the bill on every tick; here, for speed, only where it matters or is to be judged.
        judged = now - self._judged >= JUDGED_EVERY
        capped = self._spec.experiment.max_cost is not None
        if not judged and (not capped or now - self._billed < BILL_EVERY):
            return self._cost if capped else (0, 0)
        self._billed = now
        bill = make_bill(self._spec.run_id, instances, self._rows, world.market.on_demand(), server_time)
        if judged:
            self._judged = now
            world.billed(Facts(server_time, instances), self._rows, bill)
        hourly = sum(line.hours[-1].price for line in bill.instances if line.instance_id in alive)
        self._cost = bill.high, -(-hourly // 3600)
        return self._cost

    def _fetch_prices(self) -> None:
        self.world.api("prices")
        self._rows = self.world.market.history(self.world.clock.now)

    def _append(self, kind: Any, what: str, detail: Mapping[str, Any]) -> None:
        self._ledger.append(kind, what, detail, epoch=self._lease.epoch, now=self.world.store.server_time())

    def _perform(self, action: do.Action, facts: Facts) -> Body:
        match action:
            case do.Create():
                yield from self._create(action)
            case do.Launch():
                yield from self._launch(action, facts)
            case do.Start() | do.Stop() | do.Kill() | do.Probe():
                self._send(action, facts)
            case do.Recover():
                self._append("intent", "recover", action.recovery.to_json())
            case do.Wish():
                self._append("wish", action.action, {"reason": action.reason, "cap": True})
            case do.End():
                self._append("intent", "end", {"verdict": action.verdict.to_json()})
            case do.Terminate():
                yield from self._terminate(action)
            case do.Record():
                self.world.effect("s3:record", lambda: self.world.store.record(action.instance))
            case do.Delete():
                self._fence()
                delete = partial(self.world.ec2.delete, action.resource)
                self.world.effect(f"ec2:delete-{action.resource.kind}", delete)
            case do.Close():
                self._close(action)

    def _close(self, action: do.Close) -> None:
        self._fetch_prices()
        detail = {"generation": self._ledger.state.generation, "verdict": action.verdict.to_json()}
        self._append("outcome", "close", detail)

    def _terminate(self, action: do.Terminate) -> Body:
        if self.world.rules.intents and not set(action.instance_ids) <= self._ledger.terminating:
            detail = {"instance_ids": list(action.instance_ids), "reason": action.reason}
            self._append("intent", "terminate", detail)
            yield from self._breathe()
        self._fence()
        self.world.effect("ec2:terminate", lambda: self.world.terminate(action.instance_ids, self.epoch))

    def _create(self, action: do.Create) -> Body:
        world, name = self.world, resource_name(self._spec.run_id)
        self._append("intent", "create", {"kind": action.kind, "name": name})
        yield from self._breathe()
        self._fence()
        world.effect(f"ec2:create-{action.kind}", lambda: world.ec2.create(Resource(action.kind, name)))

    def _launch(self, action: do.Launch, facts: Facts) -> Body:
        spec, world = self._spec, self.world
        where: dict[str, Any] = {"generation": action.generation, "attempt": action.attempt, "offer": action.offer}
        where |= variations(action)
        request = action.request
        if request is None:
            began = self._ledger.state.generation_began or facts.server_time
            timer = timer_left(spec, facts.server_time - began, facts.cost_so_far)
            request = run_instances_request(
                spec,
                spec.offers[action.offer],
                generation=action.generation,
                attempt=action.attempt,
                count=action.count or spec.num_nodes,
                least=action.least,
                resources=facts.resources,
                root_device="/dev/sda1",
                user_data=f"{timer.total_seconds()} {(facts.server_time + timer - T0).total_seconds()}",
            )
            token = client_token(spec.run_id, action.generation, action.attempt)
            self._append("intent", "launch", where | {"request": request, "token": token})
            yield from self._breathe()
        elif not world.rules.tokens:
            request = {**request, "ClientToken": f"fresh-{world.rng.random()}"}
        self._fence()
        try:
            ids = sorted(world.effect("ec2:launch", lambda: world.launch(request, self.epoch)))
        except LaunchRefused as error:
            if error.kind in TRY_AGAIN:
                raise
            refusal = {"status": error.kind, "code": error.code, "message": error.message}
            self._append("outcome", "launch", where | refusal)
            return
        yield from self._breathe()
        self._append("outcome", "launch", where | {"status": "launched", "instance_ids": ids})

    def _fence(self) -> None:
        self._lease.hold(self.world.store.server_time())

    def _send(self, action: do.Start | do.Stop | do.Kill | do.Probe, facts: Facts) -> None:
        node, epoch = self.world.node, self.epoch
        match action:
            case do.Start():
                self._start(action, facts)
            case do.Stop(first, generation):
                self._reach(Errand("stop", first, generation), lambda: node(first).stop(generation, epoch))
            case do.Kill(ids, generation):
                for i in ids:
                    kill = partial(lambda i: node(i).kill(generation, epoch), i)
                    self._reach(Errand("kill", i, generation), kill)
            case do.Probe(ids):
                self._answers.ask(ids)
                for i in ids:
                    self._reach(Errand("probe", i, 0), partial(lambda i: node(i).answer(), i))

    def _start(self, action: do.Start, facts: Facts) -> None:
        if action.generation > 1 and not self._ledger.state.restore_known:
            step = newest_step(self._client, self._spec.run_id)
            self._append("intent", "start", {"generation": action.generation, "restore_step": step})
        self._fence()
        for i in action.instance_ids:
            self._reach(Errand("start", i, action.generation), self._start_command(action, i, facts))

    def _start_command(self, action: do.Start, instance_id: str, facts: Facts) -> Callable[[], str]:
        by_id = {item.instance_id: item for item in facts.instances}
        ips = tuple(str(by_id[i].private_ip) for i in sorted(action.ranks, key=lambda i: action.ranks[i]))
        rank, generation, epoch, world = action.ranks[instance_id], action.generation, self.epoch, self.world
        step = self._ledger.state.restore_step
        return lambda: world.node(instance_id).start(generation, epoch, rank, ips, step, world.script.upload)

    def _reach(self, errand: Errand, command: Callable[[], str]) -> None:
        """Send a command by SSH, beside the loop."""
        world, (what, instance_id, _) = self.world, errand
        self._reaching.add(errand)
        self._last_told = None

        def arrive() -> None:
            if world.is_dead(self):
                return
            if world.clock.now < self.held_until:
                world.clock.after(self.held_until - world.clock.now, arrive)
                return
            try:
                world.effect(f"ssh:{what}", command)
            except Crashed:
                world.bury(self)
            except StaleEpoch:
                self._stale = True
            except OrchError as error:
                world.note("trouble", f"{what} {instance_id}: {error.message}")
                if isinstance(error, Deserted):
                    self._answers.desert(instance_id, world.clock.now)
                elif what == "probe" and self._answers.miss(instance_id, world.clock.now):
                    world.missed(instance_id)
            else:
                self._came_back(errand)
            self._reaching.discard(errand)
            self._last_told = None

        world.clock.after(world.rng.uniform(0.3, 2), arrive)

    def _came_back(self, errand: Errand) -> None:
        """Take in that a node answered."""
        if errand.what != "probe":
            self._reached.add(errand)
            return
        self._answers.hear(errand.instance_id, self.world.clock.now)
