"""The user-data of a run's nodes, from its spec. Pure."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.spec import RunSpec
from orchestrator.node.bootstrap import BootConfig, user_data

SHORTEST_TIMER = timedelta(minutes=1)


def user_data_of(spec: RunSpec, age: timedelta) -> str:
    """Return the script of nodes launched when the run is `age` old: their timer is what is left of its time."""
    return user_data(
        BootConfig(
            run=spec.run_id,
            bucket=spec.bucket,
            region=spec.region,
            bundle=spec.bundle,
            ssh_user=spec.ssh_user,
            timer=max(SHORTEST_TIMER, spec.timer - age),
            stages_data=bool(spec.experiment.data),
        )
    )
