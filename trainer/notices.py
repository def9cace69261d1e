"""What a person should know of a training before it begins, one line each: pure, values in, words out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from trainer import memory, schedule
from trainer.recipe import DataPhase, Recipe
from trainer.words import counted


def share(recipe: Recipe, epoch: int, before: int | None) -> str:
    """Return what the number of ranks means for batch and learning rate at `epoch`; `before` is another number."""
    phase = schedule.data_phase(recipe, epoch)
    batch, factor, ranks = schedule.global_batch(recipe, phase), schedule.lr_factor(recipe, phase), _ranks(recipe)
    kept = "the global batch is kept" if recipe.keep == "global-batch" else "the batch per GPU is kept"
    changed = f"{counted(before or 0, 'rank')} before, {ranks} now: " if before not in {None, ranks} else ""
    return (
        f"{changed}{kept}: {counted(batch, 'image')} a step, at most {-(-batch // ranks):,} a rank; "
        f"learning rates {'as written' if factor == 1 else f'times {factor:.4g}'}"
    )


def parts(recipe: Recipe, epochs: int, limits: dict[DataPhase, int]) -> Iterator[str]:
    """Yield a line for each phase of the first `epochs` epochs whose shares exceed what is computed at once."""
    for start, end, phase in _phases(recipe, epochs):
        most = -(-schedule.global_batch(recipe, phase) // _ranks(recipe))
        count = memory.parts(most, limits[phase])
        if count > 1:
            yield (
                f"epochs {start}-{end}: the {most:,} images of a rank are computed in {count} parts "
                f"of at most {-(-most // count):,}"
            )


def small(recipe: Recipe, epochs: int, samples: int) -> Iterator[str]:
    """Yield a line for each phase whose batch is more than all `samples` images."""
    for start, end, phase in _phases(recipe, epochs):
        batch = schedule.global_batch(recipe, phase)
        if batch > samples:
            yield (
                f"epochs {start}-{end}: a batch of {counted(batch, 'image')} is cut to the {samples:,} there are; "
                "learning rates stay"
            )


def _ranks(recipe: Recipe) -> int:
    return recipe.ranks or recipe.gpus


def _phases(recipe: Recipe, epochs: int) -> Iterator[tuple[int, int, DataPhase]]:
    starts = [phase.start for phase in recipe.data]
    for phase, (start, end) in zip(recipe.data, pairwise([*starts, recipe.epochs]), strict=True):
        if start < epochs:
            yield start, min(end, epochs), phase
