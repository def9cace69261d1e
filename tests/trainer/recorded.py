"""Run in ranks by test_trainer_elastic.py: the trainer, which notes the images each rank trains on.

Each batch is a line `[epoch, [index, ...]]` in `trained.jsonl` beside the rank's stop file. `STOP_AFTER` in the
environment makes a rank ask to stop at that batch of this life. The recipe has tables for 3 and for 4 GPUs.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from trainer import cli, recipes
from trainer.data import loader
from trainer.data.workers import Batch
from trainer.recipes.imagenet18_sandbox import SIXTEEN

FOLDED = tuple(replace(phase, batch=4 * phase.batch) for phase in SIXTEEN.data)
TABLES = tuple(replace(SIXTEEN, machines=machines, data=FOLDED) for machines in (3, 4))


def main(arguments: list[str]) -> int:
    """Train as `python -m trainer ARGUMENTS` does."""
    stop = Path(os.environ["ORCH_STOP_FILE"])
    stop.unlink(missing_ok=True)
    last = int(os.environ.get("STOP_AFTER", "0"))
    original = loader.Images.__getitem__
    seen = 0

    def recorded(images: loader.Images, item: loader.TrainItem | loader.EvalItem) -> Batch:
        nonlocal seen
        if isinstance(item, loader.TrainItem):
            seen += 1
            with (stop.parent / "trained.jsonl").open("a") as file:
                file.write(json.dumps([item.epoch, item.indices]) + "\n")
            if seen == last:
                stop.touch()
        return original(images, item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader.Images, "__getitem__", recorded)
        if "TABLES" in os.environ:
            patch.setitem(recipes.RECIPES["imagenet18"], recipes.SANDBOX, TABLES)
        return cli.main(arguments)


def batches(folder: Path, worlds: list[int]) -> list[tuple[int, list[int]]]:
    """Return the global batches of all lives below `folder`, put together from their ranks: (epoch, indices)."""
    found = []
    for life, world in enumerate(worlds):
        files = [folder / str(life) / str(rank) / "trained.jsonl" for rank in range(world)]
        ranks = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
        for shares in zip(*ranks, strict=True):
            together = [-1] * sum(len(indices) for _, indices in shares)
            for rank, (_, indices) in enumerate(shares):
                together[rank::world] = indices
            assert len({epoch for epoch, _ in shares}) == 1
            found.append((shares[0][0], together))
    return found
