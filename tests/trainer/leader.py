"""A rank 0 without a training: reports a few steps, and then does what `python leader.py FOLDER FIRST LAST END` says.

END: `finished`, `killed` (waits for it), `failed` (leaves as a failing rank does), `stopped` (on SIGTERM). Prints
`reported` when the steps are reported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import torch

from trainer import schedule
from trainer.contract import Node
from trainer.evaluate import Scores
from trainer.recipes.imagenet18_sandbox import SIXTEEN
from trainer.reporter import Reporter
from trainer.world import World

RUN = "tiny-20261120-120000-abcd"
SCORES = Scores(top1=50.0, top5=90.0, loss=1.5, images=103)


def reporter(folder: Path) -> Reporter:
    """Return what speaks for rank 0, with its files in `folder`."""
    node = Node(
        0, 1, 0, 1, 1, "cpu", folder, folder / "progress.jsonl", folder / "stop", folder / "save", folder / "logs", RUN
    )
    return Reporter(SIXTEEN, node, World(0, 1, torch.device("cpu")), 1)


def report(speaker: Reporter, first: int, last: int, gain: float = 1.0) -> None:
    """Start after step `first`, take the steps up to `last`, evaluate; the loss of a step is `gain` over it."""
    point = schedule.at(SIXTEEN, 0)
    speaker.start({"samples": 5}, step=first, epochs=2, steps=9, numbers="fp32", weights=4, dataset="x", classes=10)
    speaker.rest()
    for step in range(first + 1, last + 1):
        speaker.count(8)
        speaker.step(step, step / 4, gain / step, point)
    speaker.pause()
    speaker.evaluated(last, 1, SCORES, point)


def main(folder: str, first: str, last: str, end: str) -> None:
    """Be rank 0."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    speaker = reporter(Path(folder))
    report(speaker, int(first), int(last))
    sys.stdout.write("reported\n")
    sys.stdout.flush()
    if end == "failed":
        os._exit(1)
    if end == "finished":
        speaker.finished(int(last), {"top1": 50.0, "top5": 90.0})
    elif asked.wait(60) and end == "stopped":
        speaker.step(int(last) + 1, 2.0, 0.25, schedule.at(SIXTEEN, 0))
        speaker.stopped(int(last) + 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
