"""What the agent does next, from what it saw. Pure: no clock, no files, no S3.

Of the training the agent asks two things, which cannot wait for a scheduler: to save and stop when EC2 takes the
machine back, or its own timer is about to end it; to save when EC2 says that the former has become likely. Else it
reports, uploads, and turns the machine off when nobody needs it any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.agent.local import Local
from orchestrator.core.beacon import Stage

# The words `run.sh` writes.
STAGES: Mapping[str, Stage] = {
    "starting": "starting", "preflight": "preflight", "staging": "staging", "setup": "setup", "running": "running",
}  # fmt: skip
# `run.sh` writes its process id before anything else; a tmux window that has none by then has failed.
START_LIMIT = 60.0
# Before the machine's own timer ends it: what uploads get after the training had its time to save.
UPLOADING = 20.0
# A machine whose timer is due, and on which all is saved, waits no longer than this for a scheduler.
DUE_LINGER = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a decision is made from. Seconds: `age` of this agent, `quiet` since the last change of what follows.

    `synced` says whether, since the training ended, all logs and checkpoints were put into S3, `noticed` whether EC2
    has announced that it takes the machine back, `advised` whether it has said that this is likely, and the training
    was not told yet, `due` whether the machine's own timer is about to end it.
    """

    local: Local
    age: float
    synced: bool
    quiet: float
    noticed: bool = False
    advised: bool = False
    due: bool = False


@dataclass(frozen=True, slots=True)
class AskToStop:
    """Make the stop file appear: one node suffices, since by the node contract the ranks agree on it."""


@dataclass(frozen=True, slots=True)
class AskToSave:
    """Make the save file appear: a checkpoint now, while training goes on, is what will be lost less of."""


@dataclass(frozen=True, slots=True)
class Report:
    """Say in the beacon that the node is in this stage."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Finish:
    """The training has ended: upload all that is left, without waiting for more."""


@dataclass(frozen=True, slots=True)
class PowerOff:
    """Turn the machine off: the work is done and saved, and no scheduler has come for it."""


Action = AskToStop | AskToSave | Report | Finish | PowerOff


def converge(seen: Seen, linger: float) -> tuple[Action, ...]:
    """Return what to do now; `linger` is how many quiet seconds a finished node waits for a scheduler.

    The report comes last: it needs S3, and what does not need S3 must not wait for it.
    """
    stage = find_stage(seen.local, seen.age)
    if stage not in {"exited", "lost"}:
        if (seen.noticed or seen.due) and not seen.local.asked:
            return (AskToStop(), Report(stage))
        return (AskToSave(), Report(stage)) if seen.advised and stage == "running" else (Report(stage),)
    if not seen.synced:
        return (Finish(), Report(stage))
    patience = min(linger, DUE_LINGER) if seen.due else linger
    return (PowerOff(), Report(stage)) if seen.quiet >= patience else (Report(stage),)


def is_due(local: Local, now: float, grace: float) -> bool:
    """Tell whether, at `now`, only so much is left of the machine's timer as saving takes: `grace` seconds and uploads.

    Of a timer that is shorter than that itself it is the second half.
    """
    if local.deadline is None:
        return False
    return local.deadline - now <= min(grace + UPLOADING, (local.deadline - local.armed) / 2)


def find_stage(local: Local, age: float) -> Stage:
    """Return the stage of a node: `lost` is a training that is gone without having said how it ended."""
    if local.exit is not None:
        return "exited"
    if local.alive is False or (local.alive is None and age > START_LIMIT):
        return "lost"
    return STAGES.get(local.word, "starting")
