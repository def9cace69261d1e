"""Which launch comes next, and when there is none left to try: the plan's offers against what EC2 refused. Pure.

The whole gang is asked for in every offer; where the gang may vary in size, and nowhere is room for all of it, for as
many as there are in each, `min_nodes` at least. Once all offers were refused a round is over. Where the run waits for
room, another round begins after a pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from orchestrator.core.actions import Launch
from orchestrator.core.deadline import wanted
from orchestrator.core.facts import Facts, Lifecycle
from orchestrator.core.ledger import Launch as Launched
from orchestrator.core.ledger import LedgerState, Verdict
from orchestrator.core.spec import RunSpec
from orchestrator.core.uniform import AHEAD, BOOT_ALLOWANCE
from orchestrator.core.units import format_duration
from orchestrator.core.worth import time_left

RETRIED_OFFERS = frozenset({"no-capacity", "not-offered", "quota", "price-cap"})
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=5)
# A recovery waits so long for room where the experiment does not say for how long.
PATIENCE = timedelta(minutes=10)


def pause(tries: int) -> timedelta:
    """Return how long to wait after the last of so many tries for room."""
    return min(FIRST_PAUSE * (1 << min(tries - 1, 10)), LONGEST_PAUSE)


def next_launch(spec: RunSpec, ledger: LedgerState, facts: Facts) -> Launch | None:
    """Return the launch to try now, None when every offer was refused and is not to be asked again yet.

    What is missing beside survivors is asked for where they are; after a refusal the whole gang moves.
    """
    attempt = ledger.attempts + 1
    recovery = ledger.recovery
    if recovery is not None and not ledger.moved:
        least = max(1, spec.min_nodes - len(recovery.kept))
        fewer = least if least < recovery.missing else None
        offer = recovery.asks[ledger.asked_beside] if recovery.asks else recovery.offer
        return Launch(ledger.generation, attempt, offer, count=recovery.missing, least=fewer)
    tried = _last_round(ledger)
    found = _next_of_round(spec, ledger, facts, tried)
    if found is None:
        again = next_round(spec, ledger, facts)
        found = _next_of_round(spec, ledger, facts, ()) if again is not None and facts.server_time >= again else None
    return None if found is None else Launch(ledger.generation, attempt, found[0], least=found[1])


def next_round(spec: RunSpec, ledger: LedgerState, facts: Facts) -> datetime | None:
    """Return when all offers are asked again, after each of them was refused; None where nobody waits for that."""
    rounds = _rounds(ledger)
    last = rounds[-1]
    if not last or last[-1].status is None or not any(item.status == "no-capacity" for item in last):
        return None
    if _next_of_round(spec, ledger, facts, last) is not None:
        return None
    if time_left(spec, ledger, facts) <= BOOT_ALLOWANCE + spec.experiment.checkpoint_grace:
        return None
    again = last[-1].time + pause(len(rounds))
    by_deadline = wanted(spec, ledger, facts)
    if by_deadline == AHEAD:
        return again
    patience = spec.experiment.capacity_wait or (PATIENCE if ledger.recovery is not None else timedelta())
    return None if again > _waits_since(spec, rounds, by_deadline) + patience else again


def _waits_since(spec: RunSpec, rounds: list[list[Launched]], by_deadline: Sequence[Lifecycle] | None) -> datetime:
    """Return the end of the first round in which all that may be asked for was."""
    whole = [r for r in rounds if any(spec.offers[item.offer].lifecycle == "on-demand" for item in r)]
    return (whole if by_deadline is not None and whole else rounds)[0][-1].time


def _rounds(ledger: LedgerState) -> list[list[Launched]]:
    """Return the launches of the whole gang in this generation, round by round; the last may be under way, or empty."""
    rounds: list[list[Launched]] = [[]]
    for launch in ledger.current:
        if launch.count is not None:
            continue
        if any((item.offer, item.least) == (launch.offer, launch.least) for item in rounds[-1]):
            rounds.append([])
        rounds[-1].append(launch)
    return rounds


def _last_round(ledger: LedgerState) -> Sequence[Launched]:
    return _rounds(ledger)[-1]


def _next_of_round(
    spec: RunSpec, ledger: LedgerState, facts: Facts, tried: Sequence[Launched]
) -> tuple[int, int | None] | None:
    """Return the offer to ask next in a round and the least number of nodes that will do (None: all of them)."""
    asked = {(launch.offer, launch.least) for launch in tried}
    no_quota = {
        (spec.offers[launch.offer].quota_code, spec.offers[launch.offer].lifecycle)
        for launch in tried
        if launch.status == "quota"
    }
    order = _order(spec, ledger, facts)
    for least in (None,) if spec.min_nodes == spec.num_nodes else (None, spec.min_nodes):
        for index in order:
            offer = spec.offers[index]
            if (index, least) not in asked and (offer.quota_code, offer.lifecycle) not in no_quota:
                return index, least
    return None


def _order(spec: RunSpec, ledger: LedgerState, facts: Facts) -> list[int]:
    """Return the offers in the order they are asked: what the deadline wants, else the plan's order.

    After an interruption the place where it happened comes last: EC2 has just said that it wants those machines back.
    """
    recovery, wants = ledger.recovery, wanted(spec, ledger, facts)
    here = spec.offers[recovery.offer] if recovery is not None and recovery.kind == "interrupted" else None

    def rank(index: int) -> tuple[int, bool, int]:
        offer = spec.offers[index]
        taken = here is not None and (offer.instance_type, offer.zone) == (here.instance_type, here.zone)
        return (0 if wants is None else wants.index(offer.lifecycle), taken, index)

    return sorted((i for i, o in enumerate(spec.offers) if wants is None or o.lifecycle in wants), key=rank)


def must_wait(spec: RunSpec, launch: Launch, facts: Facts) -> bool:
    """Tell whether a launch must wait until instances are gone.

    A cluster placement group holds machines of one zone only, and a run has one group: before its gang comes up in
    another zone the last machine must have left it.
    """
    offer = spec.offers[launch.offer]
    return offer.placement_group and any(item.alive and item.zone != offer.zone for item in facts.instances)


def launch_failed(spec: RunSpec, ledger: LedgerState, facts: Facts) -> Verdict | None:
    """Return the verdict of a generation that EC2 gives no machines for, None while there is something to try or wait
    for."""
    for launch in ledger.current:
        if launch.refused and launch.status not in RETRIED_OFFERS:
            offer = spec.offers[launch.offer]
            return Verdict(
                "failed",
                f"EC2 refused {launch.count or spec.num_nodes} x {offer.instance_type} in {offer.zone}: "
                f"{launch.code}: {launch.message}",
                f"mend what the message names, then {'launch again' if ledger.generation == 1 else '`orch resume`'}"
                + ("; nothing was started" if ledger.recovery is None else ""),
                launch.code,
            )
    if not ledger.current or any(launch.status is None for launch in ledger.current):
        return None
    last = _last_round(ledger)
    if _next_of_round(spec, ledger, facts, last) is not None or next_round(spec, ledger, facts) is not None:
        return None
    return _nothing_to_be_had(spec, ledger, last)


def _nothing_to_be_had(spec: RunSpec, ledger: LedgerState, last: Sequence[Launched]) -> Verdict:
    tried = {item.offer: item for item in last}.values()
    parts = [
        f"{spec.offers[item.offer].instance_type} {spec.offers[item.offer].lifecycle} {spec.offers[item.offer].zone}: "
        f"{item.code or item.status}"
        for item in tried
    ]
    quota = [item for item in tried if item.status == "quota"]
    hint = "try later, or name further types under resources.any_of, or --spot-policy auto"
    if quota:
        hint = f"ask AWS to raise quota {spec.offers[quota[0].offer].quota_code} (Service Quotas, EC2); " + hint
    rounds = len(_rounds(ledger))
    often = "" if rounds == 1 else f", asked {rounds} times in {format_duration(last[-1].time - _began_asking(ledger))}"
    message = f"no room for {spec.experiment.how_many('node')} anywhere asked: {'; '.join(parts)}{often}"
    if ledger.recovery is not None:
        message = f"{ledger.recovery.cause}, and {message}"
        hint = f"`orch resume` goes on from the last checkpoint; {hint}"
    return Verdict("no-capacity", message, hint, "no-capacity")


def _began_asking(ledger: LedgerState) -> datetime:
    return _rounds(ledger)[0][-1].time
