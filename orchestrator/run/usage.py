"""What a run left in S3 and fetched from it, measured for the bill's estimates. Reads only."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.aws.s3 import Bucket
from orchestrator.core.estimates import S3Use
from orchestrator.core.facts import Facts
from orchestrator.core.ids import Keys

MEASURED_EVERY = timedelta(minutes=1)


class LiveUse:
    """What a run that goes on uses of S3, for the cap and for whoever looks: the same, measured once a minute."""

    def __init__(self, bucket: Bucket, run_id: str) -> None:
        self._bucket = bucket
        self._run_id = run_id
        self._use = S3Use(0, 0, 0)
        self._measured: datetime | None = None

    def at(self, facts: Facts) -> S3Use:
        """Return the use at the time of `facts`, up to a minute old; of a run without machines nothing is asked."""
        now = facts.server_time
        if facts.instances and (self._measured is None or now - self._measured > MEASURED_EVERY):
            self._use, self._measured = measure_s3(self._bucket, self._run_id, facts), now
        return self._use


def measure_s3(bucket: Bucket, run_id: str, facts: Facts) -> S3Use:
    """Return the objects of a run, their bytes, and what its nodes staged and their scripts used by themselves.

    The last is what is in the newest progress line of each (docs/node-contract.md).
    """
    keys = Keys(run_id)
    # What does not change any more once the run is closed; its few other objects are below what can be seen.
    steady = (keys.nodes, keys.checkpoints, keys.logs, keys.metrics, keys.prices)
    kept = [item for item in bucket.list(keys.prefix) if item.key.startswith(steady)]
    staged = sum(node.beacon.staged for node in facts.nodes.values() if node.beacon is not None)
    lines = [node.beacon.progress or {} for node in facts.nodes.values() if node.beacon is not None]
    gets, puts, own = (sum(_count(line.get(name)) for line in lines) for name in ("s3_gets", "s3_puts", "s3_bytes"))
    return S3Use(len(kept), sum(item.size for item in kept), staged, gets, puts, own)


def _count(value: object) -> int:
    """Return a count that a script told, 0 where that is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
