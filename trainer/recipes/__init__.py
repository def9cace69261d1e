"""The recipes, one readable file each; may hold data and nothing that runs."""

from __future__ import annotations

from trainer.errors import TrainerError
from trainer.recipe import Recipe
from trainer.recipes import imagenet18, imagenet18_sandbox

FULL = "full"
SANDBOX = "sandbox"
SCALES = (FULL, SANDBOX)
RECIPES = {"imagenet18": {FULL: imagenet18.BY_MACHINES, SANDBOX: imagenet18_sandbox.BY_MACHINES}}


def find(name: str, scale: str, machines: int) -> Recipe:
    """Return the recipe for `machines` machines. The sandbox scale has one, whatever their number.

    Raises TrainerError when there is no table for that many machines.
    """
    tables = RECIPES[name][scale]
    if scale == SANDBOX:
        return next(iter(tables.values()))
    if machines not in tables:
        *most, last = (str(count) for count in tables)
        raise TrainerError(
            f"{name} has tables for {', '.join(most)} and {last} machines, none for {machines}",
            f"choose one with --table (its global batch is kept and shared out), or launch {last} nodes or fewer",
        )
    return tables[machines]
