"""The nouns of a recipe: what is trained on which images at which learning rate. Pure, values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPhase:
    """From epoch `start` on: images of `size` pixels, `batch` of them per GPU, read from `folder` of the data set.

    `min_scale` is the least share of an image's area that a random crop takes. With `rect_val` the validation images
    keep their aspect ratio instead of being cropped to squares.
    """

    start: int
    size: int
    batch: int
    folder: str = ""
    min_scale: float = 0.08
    rect_val: bool = False


@dataclass(frozen=True, slots=True)
class LrPhase:
    """From epoch `start` on: learning rate `lr`, or a straight line from `lr` to `lr_end` that ends at epoch `end`."""

    start: int
    lr: float
    end: int | None = None
    lr_end: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole training run for `machines` machines of `gpus_per_machine` GPUs (or ranks), both lists sorted by start.

    What binds is the global batch (`batch` x `gpus`): with another number of ranks it is kept and shared out.
    `eval_batch` is per GPU; `rect_multiple` is what the long side of a rectangular validation image is rounded down
    to, in pixels; `log_every` counts steps.
    """

    name: str
    scale: str
    machines: int
    gpus_per_machine: int
    model: str
    epochs: int
    data: tuple[DataPhase, ...]
    lr: tuple[LrPhase, ...]
    momentum: float = 0.9
    weight_decay: float = 1e-4
    flip: bool = True
    eval_batch: int = 128
    rect_multiple: int = 8
    log_every: int = 20
    note: str = ""

    def __post_init__(self) -> None:
        for phases in (self.data, self.lr):
            starts = [phase.start for phase in phases]
            if not starts or starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= self.epochs:
                raise ValueError(f"{self.name}: phases must start at 0, rise, and lie before epoch {self.epochs}")
        if any((phase.lr_end is None) != (phase.end is None) for phase in self.lr):
            raise ValueError(f"{self.name}: `end` and `lr_end` go together")

    @property
    def gpus(self) -> int:
        """How many ranks the recipe was written for."""
        return self.machines * self.gpus_per_machine
