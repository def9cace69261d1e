"""The recipes, one readable file each, and which table of a recipe a number of GPUs gets. Pure: data and a rule."""

from __future__ import annotations

from dataclasses import replace

from trainer.errors import TrainerError
from trainer.recipe import Keep, Recipe
from trainer.recipes import (
    cifar10_preact18,
    cifar10_sandbox,
    cifar10_wrn,
    imagenet18,
    imagenet18_sandbox,
    imagenet_21ep,
    imagenet_21ep_sandbox,
)
from trainer.words import counted

FULL = "full"
SANDBOX = "sandbox"
SCALES = (FULL, SANDBOX)
RECIPES: dict[str, dict[str, tuple[Recipe, ...]]] = {
    "imagenet18": {FULL: imagenet18.TABLES, SANDBOX: imagenet18_sandbox.TABLES},
    "imagenet-21ep": {FULL: imagenet_21ep.TABLES, SANDBOX: imagenet_21ep_sandbox.TABLES},
    "cifar10-wrn": {FULL: cifar10_wrn.TABLES},
    "cifar10-preact18": {FULL: cifar10_preact18.TABLES, SANDBOX: cifar10_sandbox.TABLES},
}


def find(name: str, scale: str, ranks: int, *, table: int | None = None, keep: Keep = "global-batch") -> Recipe:
    """Return the recipe `name` for `ranks` ranks (GPUs), from its table for `table` GPUs where one is named.

    Without a table of its own a count gets the largest one written for fewer GPUs, or the smallest there is: a
    published training, whose batches and learning rates stay, and whose share per GPU was seen to fit.
    Raises TrainerError when the recipe has no such scale or table.
    """
    tables = {chosen.gpus: chosen for chosen in _tables(name, scale)}
    if table is not None and table not in tables:
        counts = ", ".join(str(gpus) for gpus in tables)
        raise TrainerError(
            f"{name} has no table for {counted(table, 'GPU')}", f"give --table one of {counts}, or leave it out"
        )
    smaller = [gpus for gpus in tables if gpus <= ranks]
    chosen = tables[table or max(smaller, default=min(tables))]
    return replace(chosen, ranks=ranks, keep=keep, rule=_rule(chosen, ranks, keep, asked=table is not None))


def largest(name: str, scale: str) -> Recipe:
    """Return the table of a recipe for most GPUs. Raises TrainerError when the recipe has no such scale."""
    return max(_tables(name, scale), key=lambda table: table.gpus)


def _tables(name: str, scale: str) -> tuple[Recipe, ...]:
    scales = RECIPES[name]
    if scale not in scales:
        raise TrainerError(f"{name} has no {scale} scale", f"leave --scale out: it has {', '.join(scales)}")
    return scales[scale]


def _rule(table: Recipe, ranks: int, keep: Keep, *, asked: bool) -> str:
    """Return in words how `table` serves `ranks` ranks; nothing where it was written for as many."""
    if ranks == table.gpus:
        return ""
    why = "as asked" if asked else "the largest for fewer" if table.gpus < ranks else "the smallest there is"
    if keep == "gpu-batch":
        stays = "its batch per GPU is kept, its learning rates go with the global batch"
    else:
        stays = "its global batches and learning rates are kept, each batch is shared out"
        if ranks > min(phase.batch for phase in table.data) * table.gpus:
            stays += "; where there are more GPUs than images in one, both grow until each has an image"
    return f"{counted(ranks, 'GPU')} run{'s' if ranks == 1 else ''} the table for {table.gpus} ({why}): {stays}"
