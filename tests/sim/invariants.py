"""What must hold whatever happens: nine invariants and one of honesty, each judged by the world's own truth.

Each is a function that returns None, or what is wrong. Where production does not promise one of them yet, the case is
named in `GAPS` with the reason; a violation that falls into a named gap is counted and passed over, any other raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestrator.core.actions import Action
from orchestrator.core.bill import Bill, make_bill
from orchestrator.core.facts import Facts, PriceRow
from orchestrator.core.ids import Keys
from orchestrator.core.ledger import LedgerState
from orchestrator.core.manifest import NAME
from orchestrator.core.plan import PRICE_HEADROOM
from tests.sim.ec2 import TIMED

if TYPE_CHECKING:
    from tests.sim.scheduler import Scheduler
    from tests.sim.training import Gang
    from tests.sim.truth import Effect
    from tests.sim.world import World

# How long a machine may take over going down once its timer fired, in seconds.
SHUTDOWN = 60.0
METER_EVERY = 30.0

# What is known not to hold yet, by the name that a finding begins with. Mended: delete the line.
GAPS: Mapping[str, str] = {}


class Violation(AssertionError):
    """An invariant does not hold. `name` is that of its function."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


def no_orphan(world: World) -> str | None:
    """Every live instance is tagged to the run and goes by its own deadline, though every scheduler were gone."""
    run_id, nodes, late = world.spec.run_id, world.nodes, world.clock.now - SHUTDOWN
    for machine in world.ec2.live:
        if machine.run != run_id:
            return f"{machine.id} carries the tag of {machine.run!r}"
        node = nodes.get(machine.id)
        if node is not None and late > node.deadline and machine.usable:
            return f"{machine.id} is alive at {world.clock.now:.0f} s, its deadline was {node.deadline:.0f} s"
    return None


def bill_is_bound(world: World, facts: Facts, rows: tuple[PriceRow, ...], bill: Bill) -> str | None:
    """The bill is made of whole micro-dollars, its high bound is never below what EC2 truly charges, and for what was
    seen it only grows with time.

    Judged are the instances that EC2 has shown to who made the bill. While prices are as old as the last look at them
    (a minute at most), an hour that began since may still stand at the old price: such a bill is judged when it is
    next made.
    """
    now = world.clock.now
    machines = [m for m in world.ec2.machines.values() if m.views[0][0] <= now - world.staleness]
    high = sum(line.usd for line in bill.instances)
    if any(not isinstance(line.usd, int) or not isinstance(line.low, int) for line in bill.instances):
        return "an amount is no integer"
    if rows != world.market.history(now):
        return None
    truth = world.market.charges((m.used for m in machines), now) - sum(len(line.hours) for line in bill.instances)
    if high < truth:
        missing = {m.id for m in machines} - {line.instance_id for line in bill.instances}
        gap = "forgotten: " if missing and not (missing & {i.instance_id for i in facts.instances}) else ""
        return f"{gap}the bill says at most {high}, EC2 charges {truth} (not in the bill: {sorted(missing)})"
    later = make_bill(
        bill.run_id, facts.instances, rows, world.market.on_demand(), facts.server_time + timedelta(seconds=60)
    )
    if later.high < bill.high or later.low < bill.low:
        return "the same instances cost less a minute later"
    return None


def final_bill_is_bound(world: World, bill: Bill) -> str | None:
    """The last bill holds every instance there ever was; for those whose end EC2 gave a time its low bound is not
    above what EC2 truly charges."""
    now = world.clock.now
    lines = {line.instance_id: line for line in bill.instances}
    for machine in world.ec2.machines.values():
        line = lines.get(machine.id)
        if line is None:
            return f"forgotten: {machine.id} is not in the last bill"
        charge = world.market.charges([machine.used], now)
        if line.usd + len(line.hours) < charge:
            return f"{machine.id} is billed {line.usd}, EC2 charges {charge}"
        if machine.reason in TIMED and line.end is not None and line.low > charge + len(line.hours):
            return f"{machine.id} is billed at least {line.low}, EC2 charges {charge}"
    return None


def budget(world: World) -> str | None:
    """What EC2 truly charges never passes `max_cost`, if only the nodes' timers fire.

    Timers are sized by the planned price and a quarter more, not by the on-demand price, which is the true ceiling of
    spot: by as much as an hour truly cost more than that, the charge may be higher.
    """
    cap, now = world.spec.experiment.max_cost_micro, world.clock.now
    if cap is None:
        return None
    used = [machine.used for machine in world.ec2.machines.values()]
    charge = world.market.charges(used, now)
    if charge <= cap:
        return None
    planned = max(min(round(o.price * PRICE_HEADROOM), max(o.on_demand, o.price)) for o in world.spec.offers)
    if charge * planned <= cap * max(world.market.dearest_hour(item, now) for item in used):
        return None
    return f"EC2 charges {charge}, max_cost is {cap}"


def durability(world: World, key: str) -> str | None:
    """A manifest is written after the data it speaks of; what is damaged between the two nobody could know of."""
    folder = key.removesuffix(NAME)
    there = world.store.has(folder + "state.pt") or int(folder.split("/")[-2]) in world.truth.damaged
    return None if there else f"{key} is there, its data is not"


def lost_work(world: World, gang: Gang, reached: int) -> str | None:
    """A generation goes on from a verified checkpoint, and loses no more than one interval of checkpoints and the
    upload in flight (S3 and the node of rank 0 permitting); one interval more for each checkpoint that was damaged."""
    script, keys = gang.script, Keys(world.spec.run_id)
    first = gang.first_step
    # One that was damaged after it was restored was whole when it was.
    if (
        first
        and first not in world.truth.damaged
        and not (world.store.has(keys.manifest(first)) and world.store.has(keys.checkpoint(first, "state.pt")))
    ):
        return f"generation {gang.generation} went on from step {first}, which is no verified checkpoint"
    waiting = (script.every + script.save + 1.5 * script.upload + 30) * (1 + len(world.truth.damaged))
    waiting += world.truth.unreachable
    if reached - first > waiting / script.step:
        return f"generation {gang.generation} went on from step {first}, {reached} was reached before"
    return None


def one_actor(world: World, effect: Effect) -> str | None:
    """No intent has two effects, no effect lacks an intent, and none begins what a newer scheduler has ended."""
    state = world.state
    if effect.what == "terminate":
        intended = {i for e in world.entries if e.action == "terminate" for i in e.detail["instance_ids"]}
        missing = set(effect.detail) - intended
        return f"{sorted(missing)} were terminated without an intent" if missing else None
    token = effect.detail["token"]
    intents = [item for item in state.launches if item.request["ClientToken"] == token]
    if not intents:
        return f"a launch with token {token[:8]} has no intent"
    intent = intents[0]
    spares = {item.request["ClientToken"] for item in state.launches if item.spare}
    mine = [m for m in world.ec2.live if m.generation == intent.generation and m not in effect.detail["machines"]]
    others = [m.id for m in mine if m.token not in spares]
    if others and not intent.spare:
        return f"generation {intent.generation} was launched twice: {others} were there already"
    newest = max(entry.epoch for entry in world.entries)
    if state.verdict is not None or state.generation != intent.generation:
        return f"epoch {effect.epoch} launched what epoch {newest} had ended"
    return None


def obedience(world: World) -> str | None:
    """No node obeys a lower epoch than it has seen."""
    for node in world.nodes.values():
        if len(node.obeyed) > 1 and node.obeyed[-1] < node.obeyed[-2]:
            return f"{node.machine.id} obeyed epoch {node.obeyed[-1]} after {node.obeyed[-2]}"
    return None


def replaced_truly(world: World, scheduler: Scheduler) -> str | None:
    """A scheduler ends only when the generation is closed, or because another one has the lease."""
    if scheduler.ended == "closed" or world.state.closed or world.store.lease_epoch > scheduler.epoch:
        return None
    return f"{scheduler.name} (epoch {scheduler.epoch}) ended, though nobody replaced it: {scheduler.ended}"


def gang_is_one(world: World) -> str | None:
    """Ranks that train together share one generation, began at one step and sit on different nodes; no node ever has
    two trainers."""
    for node in world.nodes.values():
        if len(node.made) > 1 and len(node.trainers) > 1:
            return f"{node.machine.id} trains generations {[rank.generation for rank in node.trainers]}"
    stepping = [gang for gang in world.gangs.values() if gang.stepping]
    if len(stepping) > 1:
        return f"generations {[gang.generation for gang in stepping]} train at once"
    for gang in stepping:
        if len({rank.node for rank in gang.ranks.values()}) != gang.size:
            return f"generation {gang.generation} has two ranks on one node"
        if len(set(gang.restored.values())) > 1:
            return f"generation {gang.generation} began at steps {gang.restored}"
        if any(rank.generation != gang.generation for rank in gang.ranks.values()):
            return "ranks of different generations train together"
    return None


def gang_size(world: World) -> str | None:
    """A gang that trains has no fewer nodes than the least and no more than all."""
    spec = world.spec
    for gang in world.gangs.values():
        if gang.stepping and not spec.min_nodes <= gang.size <= spec.num_nodes:
            return f"generation {gang.generation} trains on {gang.size} nodes, not {spec.min_nodes} to {spec.num_nodes}"
    return None


def stable(world: World, facts: Facts) -> str | None:
    """With faults off, the run closes, and `decide` then has nothing to do."""
    state = world.state
    if not state.closed:
        return f"not closed at {world.clock.now:.0f} s; the verdict is {state.verdict}, facts at {facts.server_time}"
    actions = world.mind(world.spec, state, facts)
    return f"closed, and still to be done: {actions}" if actions else None


def idempotent(world: World, state: LedgerState, facts: Facts, actions: tuple[Action, ...]) -> str | None:
    """Deciding twice on equal facts gives equal actions."""
    again = world.mind(world.spec, state, facts)
    return None if again == actions else f"first {actions}, then {again}"


def termination_truth(world: World) -> str | None:
    """A generation is closed only when nothing that carries the run's tag is left."""
    if not world.state.closed:
        return None
    live = [machine.id for machine in world.ec2.live]
    left = [resource.id for resource in world.ec2.resources.values()]
    return f"closed while {live} and {left} are there" if live or left else None


# What a failed generation may rightly be blamed on; an interruption by EC2 is not among it.
BLAMABLE = frozenset(
    {
        "host died",
        "reboot",
        "network cut",
        "agent gone, no answer",
        "script broke",
        "powered off",
        "boot gave up",
        "staging gave up",
    }
)


def honesty(world: World) -> str | None:
    """A verdict says what happened: `finished` if all ranks ended well, `interrupted` if EC2 took a node, `failed` only
    if something failed."""
    state = world.state
    verdict = state.verdict
    if verdict is None or state.launched is None:
        return None
    first = state.generation - len(state.recoveries)
    hurts = set().union(*(found for generation, found in world.truth.hurts.items() if generation >= first))
    # A training that was done before it heard of a notice is done, though a recovery had begun.
    last = {state.generation} | ({state.recovery.generation} if state.recovery and state.recovery.graceful else set())
    gangs = [gang for gang in world.gangs.values() if gang.generation in last]
    ended_well = any(
        len(gang.ranks) == gang.size and all(rank.exit and rank.exit[0] == 0 for rank in gang.ranks.values())
        for gang in gangs
    )
    if verdict.kind == "finished" and not ended_well:
        return "finished, but not every rank ended with 0"
    if verdict.kind == "interrupted" and "interruption" not in hurts:
        return f"interrupted, but EC2 took nothing: {verdict.message}"
    # Ranks that waited too long for those that nobody started are told apart from nothing else by anybody.
    if "unseen" in hurts and "exited with code" in verdict.message:
        return None
    if verdict.kind == "failed" and not hurts & BLAMABLE:
        gap = "blamed the script: " if "interruption" in hurts else "blamed nothing: "
        return f"{gap}{verdict.message}"
    return None


NAMES = frozenset(
    function.__name__
    for function in (
        no_orphan,
        bill_is_bound,
        final_bill_is_bound,
        budget,
        durability,
        lost_work,
        one_actor,
        obedience,
        replaced_truly,
        gang_is_one,
        gang_size,
        stable,
        idempotent,
        termination_truth,
        honesty,
    )
)


@dataclass(slots=True)
class Checks:
    """Calls the invariants when what they speak of may have changed. `passed_over` counts what fell into gaps."""

    gaps: Mapping[str, str] = field(default_factory=lambda: GAPS)
    passed_over: Counter[str] = field(default_factory=Counter)
    effects: list[Effect] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    ledger_grew: bool = False
    _metered: float = 0.0
    _began: set[int] = field(default_factory=set)

    def judge(self, name: str, finding: str | None) -> None:
        """Raise Violation for a finding that falls into no known gap."""
        if finding is None:
            return
        for gap in self.gaps:
            if finding.startswith(gap):
                self.passed_over[gap] += 1
                return
        raise Violation(name, finding)

    def step(self, world: World) -> None:
        """Judge the world after an event."""
        self.judge("no_orphan", no_orphan(world))
        self.judge("gang_is_one", gang_is_one(world))
        self.judge("gang_size", gang_size(world))
        self.judge("obedience", obedience(world))
        while self.effects:
            self.judge("one_actor", one_actor(world, self.effects.pop()))
        while self.manifests:
            self.judge("durability", durability(world, self.manifests.pop()))
        if self.ledger_grew:
            self.ledger_grew = False
            self.judge("termination_truth", termination_truth(world))
            self.judge("honesty", honesty(world))
        if world.clock.now - self._metered > METER_EVERY:
            self._metered = world.clock.now
            self.judge("budget", budget(world))
            self._judge_resumes(world)

    def decided(self, world: World, state: LedgerState, facts: Facts, actions: tuple[Action, ...]) -> None:
        """Judge a decision; one in sixteen, for speed, and every one that acts."""
        if actions or int(world.clock.now) % 16 == 0:
            self.judge("idempotent", idempotent(world, state, facts, actions))

    def ended(self, world: World, scheduler: Scheduler) -> None:
        """Judge the end of a scheduler that came to one by itself."""
        self.judge("replaced_truly", replaced_truly(world, scheduler))

    def billed(self, world: World, facts: Facts, rows: tuple[PriceRow, ...], bill: Bill) -> None:
        """Judge a bill that a scheduler made on the way."""
        self.judge("bill_is_bound", bill_is_bound(world, facts, rows, bill))

    def _judge_resumes(self, world: World) -> None:
        for gang in world.gangs.values():
            if gang.generation > 1 and gang.stepping and gang.generation not in self._began:
                self._began.add(gang.generation)
                before = [item.step for item in world.gangs.values() if item.generation < gang.generation]
                self.judge("lost_work", lost_work(world, gang, max(before, default=0)))
