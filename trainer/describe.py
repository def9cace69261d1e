"""`python -m trainer describe`: what a recipe does, as a table or as JSON. Pure: values in, text out."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import Any

from trainer import schedule
from trainer.recipe import Recipe

PER_EPOCH = 4


def as_json(recipe: Recipe) -> dict[str, Any]:
    """Return the phases as they are written, and what holds at every quarter epoch."""
    samples = []
    for quarter in range(recipe.epochs * PER_EPOCH):
        epoch = quarter / PER_EPOCH
        point = schedule.at(recipe, epoch)
        samples.append(
            {
                "epoch": epoch,
                "image_size": point.size,
                "batch_per_gpu": schedule.data_phase(recipe, epoch).batch,
                "global_batch": point.batch,
                "lr": point.lr,
                "momentum": point.momentum,
                "min_scale": point.min_scale,
                "rect_val": point.rect_val,
            }
        )
    about = asdict(recipe)
    return {**about, "phases": {"data": about.pop("data"), "lr": about.pop("lr")}, "samples": samples}


def as_table(recipe: Recipe, nodes: int) -> str:
    """Return a line for every stretch of epochs in which the images or the course of the learning rate are one."""
    title = (
        f"{recipe.name}, {recipe.scale} scale, for {recipe.machines} machines of {recipe.gpus_per_machine}: "
        f"{recipe.model}, {recipe.epochs} epochs, momentum {recipe.momentum}, weight decay {recipe.weight_decay}"
    )
    lines = [title]
    if recipe.note:
        lines.append(recipe.note)
    if nodes != recipe.machines:
        lines.append(f"on {nodes} nodes the global batches are kept and shared out")
    lines.append(f"{'epochs':>8} {'pixels':>6} {'batch':>6} {'global':>6}  {'learning rate':<18} {'crop':>5}  images")
    edges = sorted({p.start for p in recipe.data} | {p.start for p in recipe.lr} | {recipe.epochs})
    for start, end in pairwise(edges):
        point, phase = schedule.at(recipe, start), schedule.data_phase(recipe, start)
        first, last = point.lr, schedule.at(recipe, end - 1e-9).lr
        course = f"{first:g}" if abs(first - last) < 1e-9 else f"{first:g} -> {last:.4g}"
        lines.append(
            f"{f'{start}-{end}':>8} {point.size:>6} {phase.batch:>6} {point.batch:>6}  {course:<18} "
            f"{point.min_scale:>5g}  {point.folder or 'as they are'}{', rectangular validation' * point.rect_val}"
        )
    return "\n".join(lines)
