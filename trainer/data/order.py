"""In which order images are seen: a function of seed and epoch alone, so that a resume loses and repeats none.

An epoch is one permutation of the data set, cut into global batches; ranks take turns inside a batch. How many ranks
there are decides who computes an image, never which images make a batch. Pure; numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trainer import schedule
from trainer.recipe import Recipe

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GlobalBatch:
    """The images of one step over all ranks: `indices` into the data set, after `seen` others of `epoch`."""

    epoch: int
    seen: int
    indices: Indices


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, samples: int) -> Indices:
    """Return the order of `samples` images in `epoch`, shape (samples,)."""
    return np.random.Generator(np.random.Philox([seed, epoch])).permutation(samples)


def remaining(recipe: Recipe, samples: int, seed: int, *, epoch: int, seen: int, epochs: int) -> Iterator[GlobalBatch]:
    """Yield every global batch of the training from (epoch, seen) to the end of epoch `epochs`, in order."""
    while epoch < epochs:
        size = schedule.batch_size(recipe, epoch, samples)
        order = permutation(seed, epoch, samples)
        while seen + size <= samples:
            yield GlobalBatch(epoch, seen, order[seen : seen + size])
            seen += size
        epoch, seen = epoch + 1, 0


def share(batch: GlobalBatch, rank: int, world: int) -> Indices:
    """Return the images of `batch` that `rank` computes: every `world`-th. Shares differ by at most one image."""
    return batch.indices[rank::world]
