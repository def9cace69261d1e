"""The recipes, one readable file each, and which table of a recipe a number of GPUs gets. Pure: data and a rule."""

from __future__ import annotations

from dataclasses import replace

from trainer.errors import TrainerError
from trainer.recipe import Keep, Recipe
from trainer.recipes import imagenet18, imagenet18_sandbox

FULL = "full"
SANDBOX = "sandbox"
SCALES = (FULL, SANDBOX)
RECIPES: dict[str, dict[str, tuple[Recipe, ...]]] = {
    "imagenet18": {FULL: imagenet18.TABLES, SANDBOX: imagenet18_sandbox.TABLES},
}


def find(name: str, scale: str, ranks: int, *, table: int | None = None, keep: Keep = "global-batch") -> Recipe:
    """Return the recipe `name` for `ranks` ranks (GPUs), from its table for `table` GPUs where one is named.

    Without a table of its own a count gets the largest one written for fewer GPUs, or the smallest there is: a
    published training, whose batches and learning rates stay, and whose share per GPU was seen to fit.
    Raises TrainerError when the recipe has no such scale or table.
    """
    scales = RECIPES[name]
    if scale not in scales:
        raise TrainerError(f"{name} has no {scale} scale", f"leave --scale out: it has {', '.join(scales)}")
    tables = scales[scale]
    if table is None:
        chosen = max((t for t in tables if t.gpus <= ranks), key=lambda t: t.gpus, default=tables[0])
    else:
        found = [t for t in tables if t.gpus == table]
        if not found:
            counts = ", ".join(str(t.gpus) for t in tables)
            raise TrainerError(
                f"{name} has no table for {table} GPUs", f"give --table one of {counts}, or leave it out"
            )
        chosen = found[0]
    return replace(chosen, ranks=ranks, keep=keep, rule=_rule(chosen, ranks, keep))


def _rule(table: Recipe, ranks: int, keep: Keep) -> str:
    if ranks == table.gpus:
        return ""
    if keep == "gpu-batch":
        stays = "its batch per GPU is kept, its learning rates go with the global batch"
    else:
        stays = "its global batches and learning rates are kept and shared out"
    return f"the table for {table.gpus} GPUs on {ranks}: {stays}"
