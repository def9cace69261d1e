"""EC2's notice that it takes the instance back, as the metadata service gives it. Reads only."""

from __future__ import annotations

import json

from orchestrator.agent.imds import Metadata

EVERY = 5.0
PATH = "meta-data/spot/instance-action"


def read_notice(metadata: Metadata) -> str | None:
    """Return the time (ISO-8601 UTC) at which EC2 takes this instance, None when it does not. Raises OSError."""
    body = metadata.get(PATH)
    if body is None:
        return None
    try:
        return str(json.loads(body)["time"])
    except (ValueError, KeyError, TypeError):
        # Whatever it says, the path only answers when the instance is to go.
        return body.strip()[:100]
