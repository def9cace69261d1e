"""`python -m trainer describe`: what a recipe does, as a table or as JSON. Pure: values in, text out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from trainer import schedule
from trainer.recipe import DataPhase, Recipe
from trainer.schedule import Point
from trainer.words import counted

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
    ramps = (*recipe.lr, *recipe.momentum)
    edges = {float(recipe.epochs), *(phase.start for phase in recipe.data), *(ramp.start for ramp in ramps)}
    edges |= {ramp.end for ramp in ramps if ramp.end is not None and ramp.end < recipe.epochs}
    return [
        Stretch(
            start,
            end,
            schedule.at(recipe, start),
            schedule.at(recipe, end - JUST_BEFORE),
            schedule.data_phase(recipe, start),
        )
        for start, end in pairwise(sorted(edges))
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


def title(recipe: Recipe) -> str:
    """Return what the recipe is, in a line."""
    machines, gpus = counted(recipe.machines, "machine"), counted(recipe.gpus_per_machine, "GPU")
    return f"{recipe.name}, {recipe.scale} scale, written for {machines} of {gpus}"


def as_table(recipe: Recipe) -> str:
    """Return a line for every stretch, below what the recipe is."""
    method = (
        f"{recipe.model}, {counted(recipe.epochs, 'epoch')}, {'Nesterov' if recipe.nesterov else 'plain'} momentum, "
        f"weight decay {recipe.weight_decay:g}{'' if recipe.decay_norms else ' (batch normalisation spared)'}"
    )
    lines = [title(recipe), method, *(text for text in (recipe.note, recipe.rule) if text)]
    lines.append(
        f"{'epochs':>9} {'pixels':>6} {'batch':>6} {'global':>6}  {'learning rate':<19} {'momentum':<14} "
        f"{'crop':>5}  images"
    )
    return "\n".join([*lines, *(_line(recipe, stretch) for stretch in stretches(recipe))])


def _line(recipe: Recipe, stretch: Stretch) -> str:
    first, last = stretch.first, stretch.last
    crop = f"+{recipe.padding}px" if recipe.padding else f"{first.min_scale:g}"
    return (
        f"{f'{stretch.start:g}-{stretch.end:g}':>9} {first.size:>6} {_images(recipe, first)['batch_per_gpu']:>6} "
        f"{first.batch:>6}  {_course(first.lr, last.lr, 4):<19} {_course(first.momentum, last.momentum, 3):<14} "
        f"{crop:>5}  {stretch.phase.folder or 'as they are'}{', rectangular validation' * first.rect_val}"
    )


def _course(first: float, last: float, digits: int) -> str:
    """Return a value, or where it comes from and goes to, without what a moment before the end leaves of it."""
    if abs(first - last) < 1e-8:
        return f"{first:.{digits}g}"
    return f"{first:.{digits}g} -> {round(last, 8):.{digits}g}"
