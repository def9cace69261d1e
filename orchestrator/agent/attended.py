"""Whether a scheduler looks after the run, as its lease in S3 says: what it has to say still comes by SSH alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta

from orchestrator.core.ids import Keys
from orchestrator.core.units import parse_time
from orchestrator.errors import OrchError

# By so much this machine's clock may be ahead of the one by which the lease was written.
SLACK = timedelta(minutes=1)


def is_attended(get: Callable[[str], bytes], run: str, now: datetime) -> bool:
    """Tell whether somebody holds the run's lease at `now`, read by `get`; what cannot be read is held by nobody."""
    try:
        expires = parse_time(json.loads(get(Keys(run).lease))["expires"])
    except (OrchError, ValueError, KeyError, TypeError):
        return False
    return expires + SLACK > now
