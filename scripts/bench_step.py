"""Time in the training loop outside forward, backward and optimizer, at sandbox scale with images in memory.

One rank trains; the clock stops around what the engine computes, and the rest of the loop is what is left: choosing
images, the schedule, signals, progress lines, normalising. Snapshots and evaluations are not in it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytest import MonkeyPatch

from trainer import contract
from trainer import world as ranks
from trainer.engine import Engine
from trainer.job import Job
from trainer.recipe import Keep
from trainer.table import Asked
from trainer.training import Training

LIMIT = 3.0  # percent
CASES: tuple[tuple[Keep, int, str], ...] = (
    ("global-batch", 1, "one rank computes whole batches, 128 images a step"),
    ("gpu-batch", 8, "one rank computes the share of one of 16, 8 images a step"),
)


class Clock:
    """Seconds spent in the methods it was put around."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return `method`, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


def share(keep: Keep, steps: int, folder: Path) -> float:
    """Return the percentage of a training of `steps` steps, with `keep` on one rank, that is not spent in computing."""
    own = {"ORCH_CHECKPOINT_DIR": "checkpoints", "ORCH_PROGRESS_FILE": "progress.jsonl", "ORCH_STOP_FILE": "stop"}
    node = contract.read({"ORCH_DEVICE": "cpu"} | {name: str(folder / path) for name, path in own.items()})
    asked = Asked(recipe="imagenet18", scale="sandbox", keep=keep)
    job = Job(asked=asked, root=None, classes=10, samples=100_000, steps=steps, checkpoint_seconds=1e9)
    clock, whole = Clock(), Clock()
    with tempfile.TemporaryFile("w") as quiet:
        shown, sys.stdout = sys.stdout, quiet
        try:
            training = Training(job, node, ranks.join(node))
            with MonkeyPatch.context() as patch:
                for name in ("forward", "_loss", "backward", "update"):
                    patch.setattr(Engine, name, clock.around(getattr(Engine, name)))
                patch.setattr(training, "_save", lambda: None)
                whole.around(training.run)()
            training.close()
        finally:
            sys.stdout = shown
    ranks.part()
    return 100 * (1 - clock.seconds / whole.seconds)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    torch.set_num_threads(1)
    steps = parser.parse_args().steps
    print(f"time outside forward (with the loss), backward and optimizer (aim: at most {LIMIT:g}%)")
    for keep, times, what in CASES:
        with tempfile.TemporaryDirectory(prefix="bench-step-") as folder:
            print(f"{share(keep, times * steps, Path(folder)):6.2f}%  {what}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
