"""Run in ranks by test_trainer_runs.py: three steps on batches of seven images, shared out as the trainer does it."""

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
from trainer.engine import Engine
from trainer.recipes.imagenet18_sandbox import SIXTEEN

IMAGES = 7


def main(arguments: list[str]) -> int:
    """Train, and write the weights to the file named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "build", lambda name, classes: _Linear())
        world = ranks.join(contract.read(os.environ))
        engine = Engine(SIXTEEN, 10, 0, "fp32", world)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (IMAGES, 3, 4, 4), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, 10, IMAGES))
    mine = order.share(order.GlobalBatch(0, 0, np.arange(IMAGES)), world.rank, world.size)
    for _ in range(3):
        engine.step(images[mine], labels[mine], IMAGES, schedule.at(SIXTEEN, 0), signals.Word(stop=False, save=False))
    if world.leads:
        torch.save(ranks.flatten(list(engine.network.parameters())), Path(arguments[0]))
    engine.close()
    ranks.wait_for_all()
    ranks.part()
    return 0


class _Linear(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32, 10))
        self.register_buffer("unused", torch.zeros(1))
