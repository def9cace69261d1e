"""Accuracy over all ranks: every validation image counts once, however many ranks there are.

Ranks take whole batches and may hold unequal numbers of them; nothing is exchanged until the sums at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from trainer import precision
from trainer import world as ranks
from trainer.data import loader, pack
from trainer.engine import Engine
from trainer.recipe import Recipe
from trainer.schedule import Point

TOP = 5


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracies in percent, the mean loss, and how many images they are of."""

    top1: float
    top5: float
    loss: float
    images: int

    def short(self) -> dict[str, float]:
        """Return what progress lines and checkpoints keep."""
        return {"top1": round(self.top1, 3), "top5": round(self.top5, 3)}


@torch.inference_mode()
def evaluate(engine: Engine, images: loader.Images, recipe: Recipe, point: Point, *, workers: int) -> Scores:
    """Return the scores at `point`; all ranks call it, all get the same. `workers` are the loader's processes."""
    network, world = engine.network, engine.world
    source = images.split(point.folder, pack.VALIDATION)
    items = loader.eval_items(
        source,
        size=point.size,
        batch=min(recipe.eval_batch, math.ceil(len(source) / world.size)),
        rect_multiple=recipe.rect_multiple if point.rect_val else 0,
        folder=point.folder,
    )
    sums = torch.zeros(4, dtype=torch.float64, device=world.device)
    network.eval()
    mine = items[world.rank :: world.size]
    pin = world.device.type == "cuda"
    for pixels, labels in loader.batches(images, mine, workers=min(workers, len(mine)), pin=pin):
        target = labels.to(world.device, non_blocking=True)
        with precision.autocast(engine.numbers, world.device):
            logits = network(engine.normalise(pixels.to(world.device, non_blocking=True))).float()
        best = logits.topk(min(TOP, logits.shape[1])).indices.eq(target[:, None])
        loss = cross_entropy(logits, target, reduction="sum")
        count = loss.new_tensor(len(target))
        sums += torch.stack([best[:, 0].sum(), best.sum(), loss, count]).double()
    network.train()
    top1, top5, loss_sum, count_sum = ranks.total(sums).tolist()
    return Scores(100 * top1 / count_sum, 100 * top5 / count_sum, loss_sum / count_sum, int(count_sum))
