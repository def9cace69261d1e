"""What comes before the training: `python3 -m orchestrator.agent.stage NODE_JSON` brings data and checkpoint here.

`run.sh` calls it, so what it prints is in the run's log, and its exit code decides whether the training begins. What
the training does not need first is brought by a child that goes on beside it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.agent.arriving import Arriving
from orchestrator.agent.config import NodeConfig
from orchestrator.agent.quick import QuickStore, suits
from orchestrator.agent.restore import drop_newer, restore, restore_step
from orchestrator.agent.staging import Opener, Staging, patiently
from orchestrator.agent.store import Reader, open_store
from orchestrator.agent.volumes import mount_all, seal
from orchestrator.core.beacon import STAGING_FAILED
from orchestrator.core.ids import Keys
from orchestrator.errors import OrchError

# The training's own processes come first.
NICE = 10


def say(text: str) -> None:
    """Print one line."""
    print(f"orch: {text}", flush=True)  # noqa: T201 - this is the training's own output


@dataclass(frozen=True, slots=True)
class Rest:
    """What is brought while the training runs."""

    staging: Staging
    arriving: Arriving

    def bring(self) -> None:
        """Bring it. Raises OrchError or OSError when it cannot be had whole."""
        self.staging.bring_rest(self.arriving)


def stage(config: NodeConfig, opened: Opener, quick: Reader | None = None) -> Rest | None:
    """Bring the data sets as far as the training needs them first, and the checkpoint that it goes on from.

    The caller brings what is returned. `quick` is tried first for the checkpoint. Raises OrchError or OSError when
    something cannot be had whole.
    """
    if config.trained or config.restore_step is not None:
        restored = _restore(config, opened, quick)
        if restored is None:
            say("no checkpoint can be restored: the training begins anew")
        drop_newer(config.checkpoint_folder, restored, say)
    mount_all(config, opened, say)
    if not config.staged:
        return None
    staging = Staging(config, opened, say)
    arriving = staging.bring_first()
    seal(config, opened, say)
    return None if arriving is None else Rest(staging, arriving)


def _restore(config: NodeConfig, opened: Opener, quick: Reader | None) -> int | None:
    """Return the step of the checkpoint that is here now, None without one."""
    step, keys, folder = config.restore_step, Keys(config.run), config.checkpoint_folder
    alone = config.num_nodes == 1
    if step is None:
        return None
    if quick is not None:
        with suppress(OrchError, OSError):
            if restore_step(quick, keys, folder, step, suits, alone=alone) is None:
                say(f"checkpoint {step} is restored")
                return step
    return restore(opened(config.bucket, config.region), keys, folder, step, say, alone=alone)


def main(arguments: list[str]) -> int:
    """Stage for the `node.json` named and return the exit code, in the child that brings the rest as well."""
    config = NodeConfig.load(Path(arguments[0]), Path(os.environ["HOME"]))
    try:
        quick = QuickStore(config.run, config.bucket, config.region)
        rest = patiently(lambda: stage(config, open_store, quick), say)
        if rest is not None and not _is_left_to_child(config):
            rest.bring()
    except OrchError as error:
        for line in error.details:
            say(line)
        say(f"{STAGING_FAILED}{error.message}")
        if error.hint:
            say(f"hint: {error.hint}")
        return 1
    except OSError as error:
        say(f"{STAGING_FAILED}{error}")
        return 1
    return 0


def _is_left_to_child(config: NodeConfig) -> bool:
    """Go on in two processes: True in the one that `run.sh` waits for, False in the child."""
    child = os.fork()
    if child:
        config.stager_file.write_text(f"{child}\n")
        return True
    # When tmux itself goes the training goes on, and so does what brings its data.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.nice(NICE)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
