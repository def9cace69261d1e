"""Reading a run's spec from S3."""

from __future__ import annotations

from orchestrator.aws.s3 import Bucket
from orchestrator.core.ids import Keys
from orchestrator.core.spec import RunSpec
from orchestrator.errors import NotFound, OrchError


def load_spec(bucket: Bucket, run_id: str) -> RunSpec:
    """Return a run's spec. Raises NotFound when there is no such run, OrchError when its file cannot be read."""
    try:
        return RunSpec.from_json(bucket.get(Keys(run_id).spec))
    except NotFound as error:
        raise NotFound(f"there is no run {run_id}", "`orch status` lists the runs") from error
    except ValueError as error:
        raise OrchError(f"{run_id} cannot be read: {error}", "use the orch version that launched it") from error
