"""Whether a scheduler looks after the run, as its lease in S3 says: what it has to say still comes by SSH alone."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.core.ids import Keys
from orchestrator.core.units import parse_time
from orchestrator.errors import OrchError

# By so much this machine's clock may be ahead of the one by which the lease was written.
SLACK = timedelta(minutes=1)


class Reader(Protocol):
    """What of a store is needed here."""

    def get(self, key: str) -> bytes:
        """Return an object. Raises NotFound."""
        ...


def is_attended(store: Reader, run: str, now: datetime) -> bool:
    """Tell whether somebody holds the run's lease at `now`; what cannot be read is held by nobody."""
    try:
        expires = parse_time(json.loads(store.get(Keys(run).lease))["expires"])
    except (OrchError, ValueError, KeyError, TypeError):
        return False
    return expires + SLACK > now
