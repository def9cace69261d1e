"""The node's heartbeat: when to send it and what is in it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.agent.config import NodeConfig
from orchestrator.agent.local import Local, last_written
from orchestrator.agent.progress import brief
from orchestrator.agent.redact import Redactor
from orchestrator.agent.store import Store
from orchestrator.agent.tail import read_tail
from orchestrator.agent.trouble import free_bytes
from orchestrator.core.beacon import Beacon, Stage
from orchestrator.core.ids import Keys
from orchestrator.core.units import iso

# However little changes: who is silent for much longer is taken for lost (`core.health.SUSPECT_AFTER`).
AT_LEAST_EVERY = 3.0
# For so many seconds a beacon that came late is spoken of.
REMEMBERED = 60.0


class Heart:
    """Sends this node's beacon when there is something to say: at once when its state changed, soon for a new step."""

    def __init__(self, config: NodeConfig, boot_id: str) -> None:
        self._config = config
        self._boot_id = boot_id
        self._key = Keys(config.run).beacon(config.instance_id)
        self._redactor = Redactor(config.secrets())
        self._last: Beacon | None = None
        self._sent_at = 0.0
        self._late: list[tuple[float, float]] = []

    def compose(self, stage: Stage, local: Local, now: datetime) -> Beacon:
        """Return the beacon as far as this node's files tell it."""
        ended = local.exit_time if stage == "exited" else None
        staging = _staging(self._config.staging_file)
        return Beacon(
            instance_id=self._config.instance_id,
            rank=self._config.rank,
            generation=self._config.generation,
            epoch=local.epoch,
            boot_id=self._boot_id,
            time=iso(now),
            stage=stage,
            exit_code=local.exit[0] if local.exit else None,
            exit_stage=local.exit[1] if local.exit else None,
            exit_time=iso(datetime.fromtimestamp(ended, UTC)) if ended else None,
            started=local.started,
            disk_free=free_bytes(self._config.folder),
            times=local.times,
            deadline=local.deadline,
            preflight=_preflight(self._config.preflight_file),
            **staging,
        )

    def beat(self, store: Store, beacon: Beacon, now: float) -> bool:
        """Send the beacon if it is time to, with the output's last lines, and tell whether it was. Raises OrchError."""
        last, waited = self._last, now - self._sent_at
        progressed = last is not None and last.progress != beacon.progress and waited >= self._config.beacon_seconds
        if last is not None and _state(last) == _state(beacon) and not progressed and waited < AT_LEAST_EVERY:
            return False
        progress = self._redactor.clean(brief(beacon.progress))
        tail = read_tail(self._config.run_log, self._redactor)
        if last is not None:
            self._late.append((now, max(0.0, waited - AT_LEAST_EVERY)))
        self._late = [item for item in self._late if now - item[0] <= REMEMBERED]
        late = round(max((seconds for _, seconds in self._late), default=0.0), 1)
        written = last_written(self._config) if beacon.stage == "running" else 0.0
        quiet = round(max(0.0, time.time() - written), 1) if written else 0.0
        said = replace(beacon, progress=progress, tail=tail, quiet=quiet, late=late)
        store.put(self._key, said.to_json())
        self._last, self._sent_at = beacon, now
        return True


def _state(beacon: Beacon) -> Beacon:
    """Return what of a beacon is worth saying at once."""
    return replace(
        beacon, time="", progress=None, tail=(), staged=0, phases=(), stage_rate=0, pause=None, disk_free=None
    )


def _preflight(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _staging(file: Path) -> dict[str, Any]:
    """Return what the beacon says of staging, nothing before it began."""
    try:
        value = json.loads(file.read_bytes())
        return {
            "staged": int(value["staged"]),
            "to_stage": int(value["to_stage"]),
            "phases": tuple((int(staged), int(to_stage)) for staged, to_stage in value["phases"]),
            "stage_rate": int(value["rate"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
