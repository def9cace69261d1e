"""`describe --plot FILE`: the course of a recipe as a picture. All drawing is here; it needs matplotlib (extra `plot`).

Four panels share the epochs: learning rate, momentum, image size, images per step over all GPUs. Shading changes where
the images or the batch do. Decides nothing: every value comes from `describe.stretches`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import describe
from trainer.errors import TrainerError
from trainer.recipe import Recipe
from trainer.schedule import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
PANELS: dict[str, Callable[[Point], float]] = {
    "learning rate": lambda point: point.lr,
    "momentum": lambda point: point.momentum,
    "image size\n(pixels)": lambda point: point.size,
    "global batch\n(images)": lambda point: point.batch,
}
_COLOURS = ("tab:blue", "tab:purple", "tab:green", "tab:orange")
_INCHES = (8, 7)
_DOTS_PER_INCH = 150
_TITLE_WIDTH = 110  # characters


def draw(recipe: Recipe, path: Path) -> None:
    """Draw `recipe` into `path`, in the format its suffix names.

    Raises TrainerError when the suffix is not one of SUFFIXES, matplotlib is missing, or the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise TrainerError(f"cannot draw a plot as {path.name}", f"name a file that ends in {', '.join(SUFFIXES)}")
    picture = figure(recipe)
    try:
        picture.savefig(path, dpi=_DOTS_PER_INCH)
    except OSError as error:
        raise TrainerError(f"cannot write {path}: {error.strerror or error}", "name another file") from error


def line(recipe: Recipe, value: Callable[[Point], float]) -> tuple[list[float], list[float]]:
    """Return epochs and values of the course: both ends of every stretch, so that lines and jumps are exact."""
    epochs, values = [], []
    for stretch in describe.stretches(recipe):
        epochs += [stretch.start, stretch.end]
        values += [value(stretch.first), value(stretch.last)]
    return epochs, values


def figure(recipe: Recipe) -> Figure:
    """Return the picture of `recipe`, a matplotlib Figure. Raises TrainerError when matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise TrainerError("plots need matplotlib", 'install it: pip install "orch[plot]"') from error
    picture = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(picture)
    picture.suptitle("\n".join([describe.title(recipe), *textwrap.wrap(recipe.rule, _TITLE_WIDTH)]), fontsize=9)
    panels = picture.subplots(len(PANELS), sharex=True, height_ratios=(2, 1, 1, 1))
    for panel, colour, (label, value) in zip(panels, _COLOURS, PANELS.items(), strict=True):
        epochs, values = line(recipe, value)
        panel.plot(epochs, values, color=colour, linewidth=1.8)
        panel.set_ylabel(label)
        if panel in panels[2:] or len(set(values)) == 1:  # nothing but the values there are
            panel.set_yticks(sorted(set(values)))
            panel.margins(y=0.2)
        _shade(panel, recipe)
    panels[0].set_ylim(bottom=0)
    panels[-1].set_xlabel("epoch")
    panels[-1].set_xlim(0, recipe.epochs)
    panels[-1].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    picture.align_ylabels(panels)
    return picture


def _shade(panel: Axes, recipe: Recipe) -> None:
    """Mark where data phases begin, and tell neighbours apart."""
    ends = [phase.start for phase in recipe.data[1:]] + [recipe.epochs]
    for index, (phase, end) in enumerate(zip(recipe.data, ends, strict=True)):
        if index % 2:
            panel.axvspan(phase.start, end, color="0.94", zorder=0)
        if index:
            panel.axvline(phase.start, color="0.75", linewidth=0.8, zorder=0.5)
    panel.grid(axis="y", color="0.9", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
