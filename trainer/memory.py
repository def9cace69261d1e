"""How many images a GPU computes at once; a larger share of a batch is computed in parts. Pure."""

from __future__ import annotations

from trainer.recipe import DataPhase, Recipe


def limit(recipe: Recipe, phase: DataPhase, gib: float | None) -> int:
    """Return how many images of `phase` a GPU of `gib` GiB holds for sure, 0 for no limit (`gib` None: a CPU).

    The recipe's batches were seen to fit into `recipe.memory_gib`, and what fits at one image size fits at smaller
    ones. Memory goes with the number of images; a GPU that reports a little less than its name says is that GPU.
    """
    if gib is None:
        return 0
    seen = max(other.batch for other in recipe.data if other.size >= phase.size)
    return int(seen * max(1.0, gib / recipe.memory_gib))


def parts(share: int, at_once: int) -> int:
    """Return in how many parts a rank computes its `share` of a batch, `at_once` images at most (0: all) in each."""
    return -(-share // at_once) if at_once else 1
