"""Run in ranks by test_trainer_engine.py: steps on batches of seven images, shared out as the trainer does it.

`unequal:main FILE AT_ONCE COMPRESS` writes what rank 0 ends with: weights, mean loss, and what was agreed on.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trainer import contract, models, schedule, signals
from trainer import world as ranks
from trainer.data import order
from trainer.engine import Engine, Settings
from trainer.recipes.imagenet18_sandbox import SIXTEEN

IMAGES = 7
STEPS = 3


def main(arguments: list[str]) -> int:
    """Train; the last rank asks to stop at the second step."""
    file, at_once, compress = arguments
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "build", lambda name, classes: Linear())
        world = ranks.join(contract.read(os.environ))
        engine = Engine(SIXTEEN, 10, Settings(compress=compress), world)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (IMAGES, 3, 4, 4), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, 10, IMAGES))
    mine = order.share(order.GlobalBatch(0, 0, np.arange(IMAGES)), world.rank, world.size)
    point = schedule.at(SIXTEEN, 0)
    losses, words = [], []
    for step in range(STEPS):
        wish = signals.Word(stop=step == 1 and world.rank == world.size - 1, save=False)
        words.append(tuple(engine.step(images[mine], labels[mine], IMAGES, point, wish, at_once=int(at_once))))
        losses.append(engine.loss())
    if world.leads:
        weights = ranks.flatten(list(engine.network.parameters()))
        torch.save({"weights": weights, "losses": losses, "words": words}, Path(file))
    engine.close()
    ranks.wait_for_all()
    ranks.part()
    return 0


class Linear(nn.Sequential):
    """A network without batch normalisation: what it learns does not depend on which images are computed together."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32, 10))
        self.register_buffer("unused", torch.zeros(1))
