"""`spot_policy: auto` with a deadline: what a run asks for now, from its facts; the rule is `core.uniform`'s. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.core import caps
from orchestrator.core.facts import Facts, Lifecycle
from orchestrator.core.ledger import LedgerState
from orchestrator.core.spec import RunSpec
from orchestrator.core.uniform import by_deadline


def wanted(spec: RunSpec, ledger: LedgerState, facts: Facts) -> tuple[Lifecycle, ...] | None:
    """Return what is to be asked for now, in this order; None where no deadline decides, but the plan's order."""
    return by_deadline(spec.experiment, done_share(facts), caps.age(spec, ledger, facts.server_time))


def done_share(facts: Facts) -> float:
    """Return the share of the work that the newest checkpoint holds, as far as progress lines say how much there is.

    What is not known counts as not done: on-demand is then asked for sooner, and no deadline is missed for it.
    """
    beacons = [node.beacon for node in facts.nodes.values() if node.beacon is not None]
    steps = max((_number(b.progress, "steps") for b in beacons), default=0.0)
    saved = max((b.checkpoint_step for b in beacons if b.checkpoint_step is not None), default=0)
    return min(1.0, saved / steps) if steps > 0 else 0.0


def beside(spec: RunSpec, ledger: LedgerState, facts: Facts, offer: int) -> tuple[int, ...]:
    """Return the offers for nodes beside those that run on `offer`: same type and zone, spot or on-demand."""
    here = spec.offers[offer]
    order = wanted(spec, ledger, facts)
    same = [
        index
        for index, item in enumerate(spec.offers)
        if (item.instance_type, item.zone) == (here.instance_type, here.zone)
        and (order is None or item.lifecycle in order)
    ]
    if order is not None:
        same.sort(key=lambda index: order.index(spec.offers[index].lifecycle))
    return tuple(same) or (offer,)


def _number(line: Mapping[str, Any] | None, name: str) -> float:
    value = (line or {}).get(name)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else 0.0  # type: ignore[arg-type]
