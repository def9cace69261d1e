"""The user-data of a run's nodes, from its spec. Pure."""

from __future__ import annotations

from orchestrator.core.spec import RunSpec
from orchestrator.node.bootstrap import BootConfig, user_data


def user_data_of(spec: RunSpec) -> str:
    """Return the script every node of the run gets; the same for all of them and all generations."""
    return user_data(
        BootConfig(
            run=spec.run_id,
            bucket=spec.bucket,
            region=spec.region,
            bundle=spec.bundle,
            ssh_user=spec.ssh_user,
            timer=spec.timer,
            stages_data=bool(spec.experiment.data),
        )
    )
