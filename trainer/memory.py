"""How many images a GPU computes at once; a larger share of a batch is computed in parts. Pure."""

from __future__ import annotations

from trainer.recipe import DataPhase, Recipe

IN_32_BIT = 0.5  # an image takes twice the memory it takes in 16 bit
LITTLE_LESS = 0.9  # a GPU of 16 GB reports 15.8 GiB, or 14.6


def limit(recipe: Recipe, phase: DataPhase, gib: float | None) -> int:
    """Return how many images of `phase` a GPU of `gib` GiB holds for sure, 0 for no limit.

    The recipe's batches were seen to fit into `recipe.memory_gib`, and what fits at one image size fits at smaller
    ones. Memory goes with the number of images; a GPU that reports a little less than its name says is that GPU.
    On a CPU (`gib` None) it is half of what its GPU held, whatever memory there is: results are the same anywhere.
    """
    if gib is None and recipe.scale != "full":
        return 0
    seen = max(other.batch for other in recipe.data if other.size >= phase.size)
    times = IN_32_BIT if gib is None else gib / recipe.memory_gib
    return int(seen * (1.0 if LITTLE_LESS < times < 1 else times))


def parts(share: int, at_once: int) -> int:
    """Return in how many parts a rank computes its `share` of a batch, `at_once` images at most (0: all) in each."""
    return -(-share // at_once) if at_once else 1
