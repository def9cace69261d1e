"""The user-data of a run's nodes, from its spec. Pure."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.spec import RunSpec
from orchestrator.node.bootstrap import BootConfig, user_data


def user_data_of(spec: RunSpec, timer: timedelta) -> str:
    """Return the script that every node of a launch gets; `timer` is how long it lives without a scheduler."""
    return user_data(
        BootConfig(
            run=spec.run_id,
            bucket=spec.bucket,
            region=spec.region,
            bundle=spec.bundle,
            ssh_user=spec.ssh_user,
            timer=timer,
            stages_data=bool(spec.experiment.data),
        )
    )
