"""`python -m trainer describe`: what a recipe does, as a table or as JSON. Pure: values in, text out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from trainer import schedule
from trainer.recipe import DataPhase, Recipe
from trainer.schedule import Point

PER_EPOCH = 4
JUST_BEFORE = 1e-9  # epochs


@dataclass(frozen=True, slots=True)
class Stretch:
    """Epochs from `start` to `end` in which the images are one and learning rate and momentum are straight lines."""

    start: float
    end: float
    first: Point
    last: Point
    phase: DataPhase


def stretches(recipe: Recipe) -> list[Stretch]:
    """Return the whole course of a recipe."""
    starts = (phase.start for phases in (recipe.data, recipe.lr, recipe.momentum) for phase in phases)
    return [
        Stretch(
            start,
            end,
            schedule.at(recipe, start),
            schedule.at(recipe, end - JUST_BEFORE),
            schedule.data_phase(recipe, start),
        )
        for start, end in pairwise(sorted({*starts, recipe.epochs}))
    ]


def as_json(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe, its phases, and what holds at every quarter epoch (`batch_per_gpu` is the largest share)."""
    phases = [
        {
            "epochs": [stretch.start, stretch.end],
            **_images(recipe, stretch.first),
            "folder": stretch.phase.folder,
            "lr": [stretch.first.lr, round(stretch.last.lr, 9)],
            "momentum": [stretch.first.momentum, round(stretch.last.momentum, 9)],
        }
        for stretch in stretches(recipe)
    ]
    samples = []
    for quarter in range(recipe.epochs * PER_EPOCH):
        epoch = quarter / PER_EPOCH
        point = schedule.at(recipe, epoch)
        samples.append({"epoch": epoch, **_images(recipe, point), "lr": point.lr, "momentum": point.momentum})
    about = {name: value for name, value in asdict(recipe).items() if name not in {"data", "lr", "momentum"}}
    return {**about, "phases": phases, "samples": samples}


def _images(recipe: Recipe, point: Point) -> dict[str, Any]:
    return {
        "image_size": point.size,
        "batch_per_gpu": -(-point.batch // (recipe.ranks or recipe.gpus)),
        "global_batch": point.batch,
        "min_scale": point.min_scale,
        "rect_val": point.rect_val,
    }


def as_table(recipe: Recipe) -> str:
    """Return a line for every stretch."""
    title = (
        f"{recipe.name}, {recipe.scale} scale, for {recipe.machines} machines of {recipe.gpus_per_machine}: "
        f"{recipe.model}, {recipe.epochs} epochs, weight decay {recipe.weight_decay:g}"
    )
    lines = [title, *(text for text in (recipe.note, recipe.rule) if text)]
    lines.append(
        f"{'epochs':>9} {'pixels':>6} {'batch':>6} {'global':>6}  {'learning rate':<19} {'momentum':<13} "
        f"{'crop':>5}  images"
    )
    for stretch in stretches(recipe):
        images = _images(recipe, stretch.first)
        lines.append(
            f"{f'{stretch.start:g}-{stretch.end:g}':>9} {stretch.first.size:>6} {images['batch_per_gpu']:>6} "
            f"{stretch.first.batch:>6}  {_course(stretch.first.lr, stretch.last.lr):<19} "
            f"{_course(stretch.first.momentum, stretch.last.momentum):<13} {stretch.first.min_scale:>5g}  "
            f"{stretch.phase.folder or 'as they are'}{', rectangular validation' * stretch.first.rect_val}"
        )
    return "\n".join(lines)


def _course(first: float, last: float) -> str:
    return f"{first:.4g}" if abs(first - last) < 1e-8 else f"{first:.4g} -> {last:.4g}"
