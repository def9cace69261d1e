"""What a run left in S3 and fetched from it, measured for the bill's estimates. Reads only."""

from __future__ import annotations

from orchestrator.aws.s3 import Bucket
from orchestrator.core.estimates import S3Use
from orchestrator.core.facts import Facts
from orchestrator.core.ids import Keys


def measure_s3(bucket: Bucket, run_id: str, facts: Facts) -> S3Use:
    """Return the objects of a run, their bytes, and the bytes of data sets that its nodes say they staged."""
    keys = Keys(run_id)
    # What does not change any more once the run is closed; its few other objects are below what can be seen.
    steady = (keys.nodes, keys.checkpoints, keys.logs, keys.metrics, keys.prices)
    kept = [item for item in bucket.list(keys.prefix) if item.key.startswith(steady)]
    staged = sum(node.beacon.staged for node in facts.nodes.values() if node.beacon is not None)
    return S3Use(len(kept), sum(item.size for item in kept), staged)
