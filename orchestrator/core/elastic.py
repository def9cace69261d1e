"""Gangs that may vary in size: spares beside one that trains with fewer than all, and when they join it. Pure.

A gang that lacks nodes and has at least `min_nodes` trains on; what it lacks is launched beside it, where it is. Once
all of these have booted the training is asked to save and stop, as at a notice, and starts again with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from orchestrator.core.actions import Action, Launch, Terminate
from orchestrator.core.deadline import beside
from orchestrator.core.facts import Facts
from orchestrator.core.gang import Gang
from orchestrator.core.health import BOOT_LIMIT, INVISIBLE_GRACE, has_pace
from orchestrator.core.launching import pause
from orchestrator.core.ledger import Launch as Launched
from orchestrator.core.ledger import LedgerState, Recovery
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import counted
from orchestrator.core.worth import FRUITLESS, boot_time, hopeless

# Growing costs a save and a start: not more often than this, nor when less is left of the run's time.
GROW_EVERY = timedelta(minutes=10)


def living_spares(ledger: LedgerState, facts: Facts) -> tuple[str, ...]:
    """Return the spares that EC2 shows as usable, or does not show yet."""
    if not ledger.spares:
        return ()
    seen = {item.instance_id: item for item in facts.instances}
    return tuple(
        instance_id
        for instance_id, launched in ledger.spares.items()
        if (seen[instance_id].usable if instance_id in seen else facts.server_time - launched <= INVISIBLE_GRACE)
    )


def ready_spares(ledger: LedgerState, facts: Facts) -> tuple[str, ...]:
    """Return the spares that have booted."""
    living = living_spares(ledger, facts)
    usable = {item.instance_id for item in facts.instances if item.usable and item.private_ip} if living else set()
    return tuple(
        instance_id
        for instance_id in living
        if instance_id in usable
        and (node := facts.nodes.get(instance_id)) is not None
        and node.host_keys
        and node.boot_failure is None
    )


def find_growth(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> Recovery | None:
    """Return the growth of a gang that trains, None while there is nothing to grow by, or no use in it."""
    ready = ready_spares(ledger, facts)[: spec.num_nodes - gang.size]
    if not ready or ledger.stop is not None or len(ready) < len(living_spares(ledger, facts)):
        return None
    grown = _last_growth(ledger)
    if not has_pace(gang, facts) or (grown is not None and facts.server_time - grown < GROW_EVERY):
        return None
    if _too_late(spec, ledger, gang, facts):
        return None
    return Recovery(
        generation=ledger.generation,
        kind="grown",
        cause=f"{counted(len(ready), 'more node')} booted",
        kept=with_spares(gang.ranks, ready, spec.num_nodes),
        going=(),
        missing=0,
        offer=ledger.offer or 0,
        graceful=True,
        trained=True,
        size=gang.size,
        time=facts.server_time,
    )


def reinforce(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> tuple[Action, ...]:
    """Return the launch of what a manned gang lacks, and the end of spares that are of no use."""
    living = living_spares(ledger, facts)
    missing = spec.num_nodes - gang.size - len(living)
    useless = {*_unfit(ledger, facts, living)}
    if missing < 0 or (living and _too_late(spec, ledger, gang, facts)):
        useless |= {*living}
    if ledger.recovery is None:  # else `recovery.release` does it
        # Meant to go, and seen all the same: whoever meant it may have died before EC2 was told.
        useless |= {i.instance_id for i in facts.instances if i.usable and i.instance_id in ledger.let_go}
    if useless:
        return (Terminate(tuple(sorted(useless)), "not needed"),)
    if missing == 0 or ledger.stop is not None or spec.min_nodes == spec.num_nodes:
        return ()
    mine = _asked(ledger)
    wasted = sum(item.status == "launched" and not {*item.instance_ids} & {*living} for item in mine)
    again = next_try(ledger, boot_time(ledger, gang))
    if again is not None and facts.server_time < again:
        return ()
    if wasted >= FRUITLESS or _too_late(spec, ledger, gang, facts):
        return ()
    offers = beside(spec, ledger, facts, ledger.offer or 0)
    offer, least = offers[len(mine) % len(offers)], None if missing == 1 else 1
    return (Launch(ledger.generation, ledger.attempts + 1, offer, None, missing, least, spare=True),)


def next_try(ledger: LedgerState, boot: timedelta) -> datetime | None:
    """Return when spares are asked for again, None: at once.

    After each try in this generation it takes longer; and none is asked for that would be up long before it may join.
    """
    mine, grown = _asked(ledger), _last_growth(ledger)
    times = [mine[-1].time + pause(len(mine))] if mine else []
    times += [grown + GROW_EVERY - boot] if grown is not None else []
    return max(times, default=None)


def _asked(ledger: LedgerState) -> list[Launched]:
    return [item for item in ledger.launches if item.generation == ledger.generation and item.spare]


def with_spares(ranks: Mapping[str, int], spares: Sequence[str], most: int) -> dict[str, int]:
    """Return the ranks of survivors, and for spares ranks beyond all, which `Gang` fits in."""
    first = max([most - 1, *ranks.values()]) + 1
    return {**ranks, **{instance_id: first + index for index, instance_id in enumerate(spares)}}


def _unfit(ledger: LedgerState, facts: Facts, living: Sequence[str]) -> tuple[str, ...]:
    def fails(instance_id: str) -> bool:
        node = facts.nodes.get(instance_id)
        if node is not None and node.boot_failure is not None:
            return True
        silent = node is None or not node.host_keys
        return silent and facts.server_time - ledger.spares[instance_id] > BOOT_LIMIT

    return tuple(filter(fails, living))


def _last_growth(ledger: LedgerState) -> datetime | None:
    return next((item.time for item in reversed(ledger.recoveries) if item.kind == "grown"), None)


def _too_late(spec: RunSpec, ledger: LedgerState, gang: Gang, facts: Facts) -> bool:
    return bool(hopeless(spec, ledger, gang, facts, GROW_EVERY))
