"""Accuracy over all ranks: every validation image counts once, however many ranks there are.

Ranks take whole batches and may hold unequal numbers of them, or none; nothing is exchanged until the sums at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from trainer import world as ranks
from trainer.data.loader import UNKNOWN
from trainer.engine import Engine
from trainer.schedule import Point
from trainer.source import Source

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
def evaluate(engine: Engine, source: Source, point: Point) -> Scores | None:
    """Return the scores at `point`; all ranks call it, all get the same: None where `source` has nothing for it."""
    network, world = engine.network, engine.world
    items = source.evaluation(point, world.size)
    if items is None:
        return None
    sums = torch.zeros(4, dtype=torch.float64, device=world.device)
    count = 0
    network.eval()
    for images, labels in source.validation(items[world.rank :: world.size]):
        logits = engine.logits(images)
        best = logits.topk(min(TOP, logits.shape[1])).indices.eq(labels[:, None])
        loss = cross_entropy(logits, labels, reduction="sum", ignore_index=UNKNOWN)
        sums[:3] += torch.stack([best[:, 0].sum(), best.sum(), loss]).double()
        count += len(labels)
    network.train()
    sums[3] = count
    top1, top5, loss_sum, count_sum = ranks.total(sums).tolist()
    return Scores(100 * top1 / count_sum, 100 * top5 / count_sum, loss_sum / count_sum, int(count_sum))
