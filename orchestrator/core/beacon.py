"""The heartbeat a node's agent writes to S3 and the scheduler reads. Pure; the one shape both sides share.

Imports nothing outside the standard library, since it also runs on the nodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

Stage = Literal["starting", "preflight", "staging", "setup", "running", "exited", "lost"]
Trouble = Literal["memory", "gpu-memory", "disk", "killed"]
# What `agent.stage` puts before the reason in its last words, for the scheduler to find it in `tail`.
STAGING_FAILED = "staging failed: "


class Mark(NamedTuple):
    """When a stage of a node's life began: Unix time by the node's clock. Generation 0 is the boot.

    Stages of generation 0: `bundle` (the boot script runs) and `ready` (the bundle is unpacked, host keys go to S3). Of
    the others: those of `run.sh`, then `progress` (the first progress line) and `step` (the first that tells a step).
    """

    generation: int
    stage: str
    time: float


@dataclass(frozen=True, slots=True)
class Beacon:
    """What one node says of itself.

    `time` is ISO-8601 UTC by the node's clock. `stage` is where `run.sh` is; `exited` once it wrote its exit code
    (`exit_code`, `exit_stage` the stage it ended in), `lost` when its tmux window vanished without one. `synced` is
    true once, after the end, every log and checkpoint is in S3. `stopped_step` is the step of the `stopped` event,
    `checkpoint_step` the newest checkpoint whose manifest this node put in S3, `progress` the last progress line that
    has a step. `tail` holds the last lines of the output, control characters removed. `staged`/`to_stage` are bytes,
    `phases` the same of each phase of the data, `stage_rate` the bytes a second that come from S3.
    `started` is the Unix time at which the `run` command began. `notice` is the time at which EC2 takes the machine
    back, `advice` that of its advice that this has become likely (as EC2 writes them), None without. `quiet` is for how
    many seconds nothing on this node was written by the training, `pause` the longest time between two progress lines
    so far (None before there were enough to tell). `disk_free` are the bytes left on the disk it writes to,
    `trouble` what had run out when the training failed, as far as this machine can tell. `times` are the newest marks
    of all generations, in order, `preflight` what was found before the training (`core.preflight`), None without one.
    `late` is by how many seconds the latest beacon of the last minute came after it should have, as on a machine that
    is busy. `deadline` is the Unix time at which the machine's own timer ends it, `due` true once that is so near that
    the agent had the training save and stop.
    """

    instance_id: str
    rank: int
    generation: int
    epoch: int
    boot_id: str
    time: str
    stage: Stage
    exit_code: int | None = None
    exit_stage: str | None = None
    exit_time: str | None = None
    stopped_step: int | None = None
    checkpoint_step: int | None = None
    synced: bool = False
    staged: int = 0
    to_stage: int = 0
    phases: tuple[tuple[int, int], ...] = ()
    stage_rate: int = 0
    started: float | None = None
    progress: Mapping[str, Any] | None = None
    tail: tuple[str, ...] = ()
    notice: str | None = None
    advice: str | None = None
    deadline: float | None = None
    due: bool = False
    late: float = 0.0
    quiet: float = 0.0
    pause: float | None = None
    disk_free: int | None = None
    trouble: Trouble | None = None
    times: tuple[Mark, ...] = ()
    preflight: Mapping[str, Any] | None = None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """`times`; of an agent that does not tell them, the start of `run` alone."""
        if self.times or self.started is None:
            return self.times
        return (Mark(self.generation, "running", self.started),)

    def to_json(self) -> bytes:
        """Return the beacon as a JSON object."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Beacon:
        """Return the beacon in `body`; unknown keys (a newer agent's) are ignored. Raises ValueError."""
        try:
            data = json.loads(body)
            known = {f.name for f in fields(cls)}
            data = {key: value for key, value in data.items() if key in known}
            data["tail"] = tuple(data.get("tail", ()))
            data["times"] = tuple(Mark(int(g), str(name), float(t)) for g, name, t in data.get("times", ()))
            data["phases"] = tuple((int(staged), int(to_stage)) for staged, to_stage in data.get("phases", ()))
            return cls(**data)
        except (TypeError, AttributeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a beacon: {error}") from error
