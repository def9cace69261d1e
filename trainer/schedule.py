"""Image size, batch, learning rate and momentum as pure functions of how far the training is.

How far is (epoch, samples seen in it), never a count of steps on some number of ranks: so the schedule is the same
whatever the number of ranks, before and after a resume. May not know ranks, files or torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.recipe import DataPhase, Ramp, Recipe


@dataclass(frozen=True, slots=True)
class Point:
    """What holds at one moment of a training: `batch` is the global one, in images; `size` is in pixels."""

    size: int
    batch: int
    lr: float
    momentum: float
    min_scale: float
    rect_val: bool
    folder: str


def data_phase(recipe: Recipe, epoch: float) -> DataPhase:
    """Return the data phase in force at `epoch` (the last one that began)."""
    return next(phase for phase in reversed(recipe.data) if phase.start <= epoch)


def on_ramps(ramps: Sequence[Ramp], epoch: float) -> float:
    """Return the value at `epoch`, a fraction inside an epoch being the share of its images seen."""
    ramp = next(ramp for ramp in reversed(ramps) if ramp.start <= epoch)
    if ramp.end is None or ramp.to is None:
        return ramp.value
    share = min(1.0, (epoch - ramp.start) / (ramp.end - ramp.start))
    return ramp.value + (ramp.to - ramp.value) * share


def global_batch(recipe: Recipe, phase: DataPhase) -> int:
    """Return the images of one step over all ranks: at least one for each rank."""
    ranks = recipe.ranks or recipe.gpus
    gpus = recipe.gpus if recipe.keep == "global-batch" else ranks
    return max(phase.batch * gpus, ranks)


def lr_factor(recipe: Recipe, phase: DataPhase) -> float:
    """Return what the written learning rates are multiplied by: the batch is so much larger than the one written.

    The linear scaling rule (Goyal et al. 2017, arXiv:1706.02677).
    """
    return global_batch(recipe, phase) / (phase.batch * recipe.gpus)


def at(recipe: Recipe, epoch: float) -> Point:
    """Return everything that holds at `epoch`."""
    phase = data_phase(recipe, epoch)
    return Point(
        size=phase.size,
        batch=global_batch(recipe, phase),
        lr=on_ramps(recipe.lr, epoch) * lr_factor(recipe, phase),
        momentum=on_ramps(recipe.momentum, epoch),
        min_scale=phase.min_scale,
        rect_val=phase.rect_val,
        folder=phase.folder,
    )


def batch_size(recipe: Recipe, epoch: int, samples: int) -> int:
    """Return the images per step in `epoch` of a data set of `samples` images: the global batch, or all there are."""
    return min(samples, at(recipe, epoch).batch)


def steps(recipe: Recipe, epoch: int, samples: int) -> int:
    """Return the steps in `epoch`. Images that do not fill a last batch wait: each epoch it is others."""
    return samples // batch_size(recipe, epoch, samples)


def total_steps(recipe: Recipe, samples: int, epochs: int) -> int:
    """Return the steps of the first `epochs` epochs."""
    return sum(steps(recipe, epoch, samples) for epoch in range(epochs))


def progress(recipe: Recipe, epoch: int, seen: int, samples: int) -> float:
    """Return how far a training is, in epochs, when `seen` images of `epoch` have been trained on."""
    return epoch + seen / (steps(recipe, epoch, samples) * batch_size(recipe, epoch, samples))


def ends_phase(recipe: Recipe, epoch: int) -> bool:
    """Return whether the images or the batch change after `epoch`."""
    return data_phase(recipe, epoch) is not data_phase(recipe, epoch + 1)
