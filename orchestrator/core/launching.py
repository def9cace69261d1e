"""Which launch comes next, and when there is none left to try: the plan's offers against what EC2 refused. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core.actions import Launch
from orchestrator.core.facts import Facts
from orchestrator.core.ledger import Launch as Launched
from orchestrator.core.ledger import LedgerState, Verdict
from orchestrator.core.spec import RunSpec

RETRIED_OFFERS = frozenset({"no-capacity", "not-offered", "quota", "price-cap"})


def next_launch(spec: RunSpec, ledger: LedgerState) -> Launch | None:
    """Return the launch to try now, None when every offer was refused.

    What is missing beside survivors is asked for once, where they are; after a refusal the whole gang moves.
    """
    attempt = len(ledger.current) + 1
    recovery = ledger.recovery
    if recovery is not None and not ledger.moved:
        return Launch(ledger.generation, attempt, recovery.offer, count=recovery.missing)
    offer = next_offer(spec, ledger)
    return None if offer is None else Launch(ledger.generation, attempt, offer)


def next_offer(spec: RunSpec, ledger: LedgerState) -> int | None:
    """Return the index of the next offer for the whole gang, or None when every one was refused.

    After an interruption the place where it happened comes last: EC2 has just said that it wants those machines back.
    """
    tried = {launch.offer for launch in ledger.current if launch.count is None}
    no_quota = {
        (spec.offers[launch.offer].quota_code, spec.offers[launch.offer].lifecycle)
        for launch in ledger.current
        if launch.status == "quota" and launch.count is None
    }
    recovery = ledger.recovery
    shunned = recovery.offer if recovery is not None and recovery.kind == "interrupted" else None
    for index in sorted(range(len(spec.offers)), key=lambda i: (i == shunned, i)):
        offer = spec.offers[index]
        if index not in tried and (offer.quota_code, offer.lifecycle) not in no_quota:
            return index
    return None


def must_wait(spec: RunSpec, launch: Launch, facts: Facts) -> bool:
    """Tell whether a launch must wait until instances are gone.

    A cluster placement group holds machines of one zone only, and a run has one group: before its gang comes up in
    another zone the last machine must have left it.
    """
    offer = spec.offers[launch.offer]
    return offer.placement_group and any(item.alive and item.zone != offer.zone for item in facts.instances)


def launch_failed(spec: RunSpec, ledger: LedgerState) -> Verdict | None:
    """Return the verdict of a generation that EC2 gives no machines for, None while there is something to try."""
    for launch in ledger.current:
        if launch.refused and launch.status not in RETRIED_OFFERS:
            offer = spec.offers[launch.offer]
            return Verdict(
                "failed",
                f"EC2 refused {launch.count or spec.num_nodes} x {offer.instance_type} in {offer.zone}: "
                f"{launch.code}: {launch.message}",
                "mend what the message names, then launch again"
                + ("; nothing was started" if ledger.recovery is None else ""),
                launch.code,
            )
    if not ledger.current or any(launch.status is None for launch in ledger.current):
        return None
    return None if next_offer(spec, ledger) is not None else _nothing_to_be_had(spec, ledger)


def _nothing_to_be_had(spec: RunSpec, ledger: LedgerState) -> Verdict:
    tried: Iterable[Launched] = ledger.current
    parts = [
        f"{spec.offers[item.offer].instance_type} {spec.offers[item.offer].lifecycle} {spec.offers[item.offer].zone}: "
        f"{item.code or item.status}"
        for item in tried
    ]
    quota = [item for item in tried if item.status == "quota"]
    hint = "try later, or name further types under resources.any_of, or --spot-policy auto"
    if quota:
        hint = f"ask AWS to raise quota {spec.offers[quota[0].offer].quota_code} (Service Quotas, EC2); " + hint
    message = f"no room for {spec.num_nodes} nodes anywhere asked: {'; '.join(parts)}"
    if ledger.recovery is not None:
        message = f"{ledger.recovery.cause}, and {message}"
        hint = f"`orch resume` goes on from the last checkpoint; {hint}"
    return Verdict("no-capacity", message, hint, "no-capacity")
