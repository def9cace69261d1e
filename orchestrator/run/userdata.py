"""The user-data of a run's nodes, from its spec. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.core import catalog
from orchestrator.core.plan import SHORTEST_TIMER, TEARDOWN_ALLOWANCE, node_timer
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import MicroUSD
from orchestrator.node.bootstrap import BootConfig, user_data


def timer_left(spec: RunSpec, age: timedelta, spent: MicroUSD) -> timedelta:
    """Return how long nodes live without a scheduler that are launched when the run is `age` old and has cost `spent`.

    `spec` holds the caps that are in force now. It is what is left of the run's time, and of its money: who comes late
    does not live longer than the others.
    """
    left = spec.experiment.max_duration + TEARDOWN_ALLOWANCE - age
    timer = node_timer(spec.experiment, spec.num_nodes, spec.offers, spec.volumes, spent)
    return max(SHORTEST_TIMER, min(left, timer))


def user_data_of(spec: RunSpec, timer: timedelta, now: datetime, instance_type: str) -> str:
    """Return what every node of a launch that is asked for `now` gets; `timer` is how long it lives unscheduled.

    Data are kept in the memory of machines that have enough of it.
    """
    return user_data(
        BootConfig(
            run=spec.run_id,
            bucket=spec.bucket,
            region=spec.region,
            bundle=spec.bundle,
            ssh_user=spec.ssh_user,
            timer=timer,
            deadline=now + timer,
            stages_data=bool(spec.data_bytes) and catalog.holds_in_memory(instance_type, sum(spec.data_bytes.values())),
            prelude=spec.prelude,
        )
    )
