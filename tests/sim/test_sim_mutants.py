"""Each invariant has a mutant that breaks what it guards: one that nobody catches would guard nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.actions import Action, Close, End
from orchestrator.core.bill import Bill, make_bill
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts
from orchestrator.core.ids import TAG_RUN
from orchestrator.core.ledger import LedgerState, Verdict
from orchestrator.core.spec import RunSpec
from orchestrator.errors import StaleEpoch
from orchestrator.run.lease import Lease
from orchestrator.run.request import run_instances_request
from tests.sim import invariants, run, scheduler
from tests.sim.faults import leave_alone
from tests.sim.invariants import Violation
from tests.sim.run import simulate
from tests.sim.world import World

SEEDS = 400
Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """What is broken: in the world, in the modules, and the invariant that must turn red."""

    caught_by: str
    change: Callable[[World], object] = lambda _: None
    patch: Callable[[Patch], object] = lambda _: None


def thinking(mutate: Callable[[RunSpec, LedgerState, Facts, tuple[Action, ...]], tuple[Action, ...]]) -> Any:
    """Return a change that puts `mutate` behind `decide`."""

    def change(world: World) -> None:
        world.mind = lambda spec, state, facts: mutate(spec, state, facts, decide(spec, state, facts))

    return change


def never_closes(_: RunSpec, __: LedgerState, ___: Facts, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    return tuple(action for action in actions if not isinstance(action, Close))


def closes_too_soon(_: RunSpec, state: LedgerState, __: Facts, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    return actions if state.verdict is None else (Close(state.verdict),)


def always_finished(_: RunSpec, __: LedgerState, ___: Facts, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    return tuple(End(Verdict("finished", "all is well")) if isinstance(a, End) else a for a in actions)


def content_with_less(world: World) -> None:
    """Let a run train on whatever is there."""

    def mind(spec: RunSpec, state: LedgerState, facts: Facts) -> tuple[Action, ...]:
        loose = replace(spec, experiment=spec.experiment.model_copy(update={"min_nodes": 1}))
        return decide(loose, state, facts)

    world.mind = mind


def moody(world: World) -> None:
    """Let decisions depend on how often one was made."""
    asked = 0

    def mind(spec: RunSpec, state: LedgerState, facts: Facts) -> tuple[Action, ...]:
        nonlocal asked
        asked += 1
        return decide(spec, state, facts) if asked % 10 else ()

    world.mind = mind


def bills_too_little(module: Any) -> Callable[[Patch], None]:
    """Return a patch that lets `module` bill what was so a while ago."""

    def bill(run_id: str, instances: Any, prices: Any, on_demand: Any, now: Any) -> Bill:
        shorter = [replace(item, launch_time=item.launch_time + timedelta(seconds=90)) for item in instances]
        return make_bill(run_id, shorter, prices, on_demand, now)

    return lambda patch: patch.setattr(module, "make_bill", bill)


def left_alone(world: World) -> None:
    """Let nobody look after the first few minutes."""

    def leave() -> None:
        leave_alone(world)

    world.clock.after(200, leave)


def believes_a_lost_reply(patch: Patch) -> None:
    """Let the lease take a renewal whose reply was lost for that of another."""

    def renew(lease: Lease, now: Any) -> None:
        if lease._held is None or not lease._swap(lease._held.epoch, now, lease._held.etag):
            raise StaleEpoch("another scheduler took this run over")

    patch.setattr(Lease, "renew", renew)


def obeyed(world: World) -> None:
    """Let nodes obey whoever comes, in a world where schedulers sleep often."""
    world.node_rules.epochs = False
    world.swarm.rates |= {"pauses": 0.2, "ssh fails": 0.3}
    for at in range(40, 400, 8):
        world.clock.after(at, lambda: add_another(world))


def add_another(world: World) -> None:
    world.hold_scheduler(25)
    world.start_scheduler()


def off(owner: str, *names: str) -> Callable[[World], None]:
    """Return a change that turns rules off."""

    def change(world: World) -> None:
        for name in names:
            setattr(getattr(world, owner), name, False)

    return change


def tags_another_run(patch: Patch) -> None:
    def request(*args: Any, **keys: Any) -> dict[str, Any]:
        made = run_instances_request(*args, **keys)
        pairs = [pair for pair in made["TagSpecifications"][0]["Tags"] if pair["Key"] != TAG_RUN]
        return made | {"TagSpecifications": [{"Tags": [*pairs, {"Key": TAG_RUN, "Value": "another"}]}]}

    patch.setattr(scheduler, "run_instances_request", request)


def no_timers_known(patch: Patch) -> None:
    patch.setattr(scheduler, "timer_left", lambda *_: timedelta(hours=3))


MUTANTS: Mapping[str, Mutant] = {
    "timers do not fire": Mutant("no_orphan", off("node_rules", "timer")),
    "a reboot disarms the timer": Mutant("no_orphan", off("node_rules", "rearms")),
    "machines carry another run's tag": Mutant("no_orphan", patch=tags_another_run),
    "bills lag behind": Mutant("bill_is_bound", patch=bills_too_little(scheduler)),
    "the last bill is too low": Mutant("final_bill_is_bound", patch=bills_too_little(run)),
    "timers know no budget": Mutant("budget", left_alone, no_timers_known),
    "the manifest goes first": Mutant("durability", off("node_rules", "data_first")),
    "nothing is restored": Mutant("lost_work", off("node_rules", "restores")),
    "EC2 is given a fresh token each time": Mutant("one_actor", off("rules", "tokens")),
    "nothing is written down before it is terminated": Mutant("one_actor", off("rules", "intents")),
    "nodes obey everybody": Mutant("obedience", obeyed),
    "a second start starts a second time": Mutant("gang_is_one", off("node_rules", "starts_once")),
    "a lost reply counts as a lost lease": Mutant("replaced_truly", patch=believes_a_lost_reply),
    "any number of nodes will do": Mutant("gang_size", content_with_less),
    "a run never closes": Mutant("stable", thinking(never_closes)),
    "decisions depend on mood": Mutant("idempotent", moody),
    "a run closes before its machines are gone": Mutant("termination_truth", thinking(closes_too_soon)),
    "everything has finished": Mutant("honesty", thinking(always_finished)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_its_invariant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    mutant.patch(monkeypatch)
    for seed in range(SEEDS):
        try:
            simulate(seed, change=mutant.change)
        except Violation as violation:
            assert violation.name == mutant.caught_by, f"seed {seed}: {violation}"[:400]
            return
    pytest.fail(f"{name}: not caught in {SEEDS} seeds")


def test_every_invariant_has_a_mutant() -> None:
    assert {mutant.caught_by for mutant in MUTANTS.values()} == invariants.NAMES
