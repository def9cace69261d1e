"""Which table of a recipe a training uses: the one asked for, that of its checkpoint, or by the number of ranks. Pure.

A training that goes on with other ranks keeps the table it began with, and what stays on other numbers of ranks
(`keep`): with others it would be another training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from trainer import recipes
from trainer.recipe import Keep, Recipe
from trainer.words import counted

KEEP: Keep = "global-batch"  # where nobody says what stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says of the recipe; None is what it leaves open."""

    recipe: str
    scale: str
    table: int | None = None
    keep: Keep | None = None


def choose(asked: Asked, ranks: int, checkpoint: Mapping[str, Any] | None) -> Recipe:
    """Return the recipe for `ranks` ranks; `checkpoint` is the meta of the one to go on from.

    Raises TrainerError for a table that does not exist. A table asked for wins: whoever compares the result with the
    checkpoint refuses it.
    """
    begun = checkpoint or {}
    if (begun.get("recipe"), begun.get("scale")) != (asked.recipe, asked.scale):
        begun = {}
    table = asked.table or begun.get("gpus")
    keep = asked.keep or cast(Keep, begun.get("keep", KEEP))
    recipe = recipes.find(asked.recipe, asked.scale, ranks, table=table, keep=keep)
    table_of = f"the table for {counted(recipe.gpus, 'GPU')}"
    rule = recipe.rule or f"{table_of}, written for as many"
    if begun and not asked.table:
        rule = f"{table_of} on {ranks}: the one that checkpoint {begun['step']} began with"
    return replace(recipe, rule=rule)


def possible(asked: Asked, ranks: int) -> list[Recipe]:
    """Return every recipe that `choose` may return, the one of a fresh start first. Raises TrainerError as it does."""
    first = choose(asked, ranks, None)
    if asked.table:
        return [first]
    others = [table.gpus for table in recipes.RECIPES[asked.recipe][asked.scale] if table.gpus != first.gpus]
    return [first, *(recipes.find(asked.recipe, asked.scale, ranks, table=gpus) for gpus in others)]
