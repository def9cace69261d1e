"""Image size, batch, learning rate and momentum as pure functions of how far the training is.

How far is (epoch, samples seen in it), never a count of steps on some number of ranks: so the schedule is the same
whatever the number of ranks, before and after a resume. May not know ranks, files or torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.recipe import DataPhase, Recipe


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


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at `epoch`, a fraction inside an epoch being the share of its images seen."""
    phase = next(phase for phase in reversed(recipe.lr) if phase.start <= epoch)
    if phase.end is None or phase.lr_end is None:
        return phase.lr
    share = min(1.0, (epoch - phase.start) / (phase.end - phase.start))
    return phase.lr + (phase.lr_end - phase.lr) * share


def at(recipe: Recipe, epoch: float) -> Point:
    """Return everything that holds at `epoch`."""
    phase = data_phase(recipe, epoch)
    return Point(
        size=phase.size,
        batch=phase.batch * recipe.gpus,
        lr=learning_rate(recipe, epoch),
        momentum=recipe.momentum,
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
