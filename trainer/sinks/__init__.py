"""Where else the figures of a training go: TensorBoard event files, Weights & Biases. Neither is needed.

Each sink is a process of its own (`sinks.follower`) that reads what rank 0 writes to the progress file. So whatever a
package takes to import, waits for or dies of, the training neither waits for it nor sees it; what it costs rank 0 is
starting a process. `start` belongs on rank 0 alone. May not import the packages themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainer.contract import Node
from trainer.recipe import Recipe

TENSORBOARD, WANDB = "tensorboard", "wandb"
PATIENCE = 15.0  # seconds the end of a training waits for its sinks; a node that EC2 takes back has two minutes
_PACKAGES = Path(__file__).parents[2]


class Sinks:
    """The sinks of one training, followers of its progress file; `close` when the last line is written."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._followers: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, kinds: Sequence[str], job: Mapping[str, Any]) -> None:
        """Start a follower of each kind with `job` (what `sinks.follower` reads from stdin)."""
        for kind in kinds:
            command = [sys.executable, "-m", "trainer.sinks.follower", kind]
            try:
                # A session of its own: signals to the training's group are not for it, its last lines still come.
                process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=_PACKAGES, start_new_session=True)
                self._followers[kind] = process
                if process.stdin is not None:
                    process.stdin.write(json.dumps(job).encode())
                    process.stdin.close()
            except OSError as error:
                self._say(f"{kind} is off: {error}")

    def close(self) -> None:
        """Return when the followers are done with the last line; those that are not in PATIENCE seconds are ended."""
        ends = time.monotonic() + PATIENCE
        for kind, process in self._followers.items():
            try:
                process.wait(max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self._say(f"{kind} was not done {PATIENCE:g} s after the training: it may lack the last figures")
        self._followers.clear()


def start(recipe: Recipe, node: Node, offset: int, say: Callable[[str], None]) -> Sinks:
    """Start what is wanted and there, following the progress file from byte `offset`, the line of event `start`."""
    sinks = Sinks(say)
    job = {
        "progress": str(node.progress.absolute()),
        "offset": offset,
        "logs": str((node.logs or Path()).absolute()),
        "run": node.run,
        "recipe": asdict(recipe),
        "parent": os.getpid(),
        "patience": PATIENCE,
    }
    sinks.start(wanted(node, os.environ), job)
    return sinks


def wanted(node: Node, environ: Mapping[str, str]) -> list[str]:
    """Return the kinds of sinks whose package is installed and for which the environment has a place or a key."""
    asked = {TENSORBOARD: node.logs is not None, WANDB: bool(environ.get("WANDB_API_KEY"))}
    return [kind for kind, there in asked.items() if there and find_spec(kind) is not None]
