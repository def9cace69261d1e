"""Earlier runs, for the forecast: from the reports kept on this machine and in the bucket. Reads only."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from orchestrator.aws.s3 import Bucket
from orchestrator.core.forecast import Earlier, read_earlier
from orchestrator.core.ids import Keys
from orchestrator.errors import OrchError
from orchestrator.run.home import Home
from orchestrator.run.read import list_runs

# However many runs there are, a plan reads so many reports, the newest.
MOST_REPORTS = 40
WORKERS = 8


def find_earlier(home: Home, bucket: Bucket) -> tuple[Earlier, ...]:
    """Return the newest runs that finished; none where nothing can be read, since a plan can do without."""
    kept = {run.run_id for run in home.runs}
    with suppress(OrchError):
        kept |= set(list_runs(bucket))
    newest = sorted(kept, key=lambda run_id: run_id[-20:], reverse=True)[:MOST_REPORTS]
    with ThreadPoolExecutor(WORKERS) as pool:
        reports = list(pool.map(lambda run_id: _report(home, bucket, run_id), newest))
    found = (read_earlier(report) for report in reports if report is not None)
    return tuple(item for item in found if item is not None)


def _report(home: Home, bucket: Bucket, run_id: str) -> dict[str, Any] | None:
    try:
        here = home.load_report(run_id)
        value = here if here is not None else json.loads(bucket.get(Keys(run_id).report))
    except (OrchError, ValueError):
        return None
    return value if isinstance(value, dict) else None
