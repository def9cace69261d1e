"""EC2's notice that it takes the instance back, as the metadata service gives it. Reads only."""

from __future__ import annotations

import json

from orchestrator.agent.imds import Metadata

EVERY = 5.0
PATH = "meta-data/spot/instance-action"
ADVICE = "meta-data/events/recommendations/rebalance"


def read_notice(metadata: Metadata) -> str | None:
    """Return the time (ISO-8601 UTC) at which EC2 takes this instance, None when it does not. Raises OSError."""
    return _time(metadata.get(PATH), "time")


def read_advice(metadata: Metadata) -> str | None:
    """Return the time of EC2's advice that an interruption has become likely, None without. Raises OSError."""
    return _time(metadata.get(ADVICE), "noticeTime")


def _time(body: str | None, key: str) -> str | None:
    if body is None:
        return None
    try:
        return str(json.loads(body)[key])
    except (ValueError, KeyError, TypeError):
        # Whatever it says, these paths answer only when there is something to say.
        return body.strip()[:100]
