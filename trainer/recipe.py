"""The nouns of a recipe: what is trained on which images at which learning rate. Pure, values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of the channels, pixels from 0 to 1
IMAGENET_STD = (0.229, 0.224, 0.225)
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)

Keep = Literal["global-batch", "gpu-batch"]


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
class Ramp:
    """From epoch `start` on: `value`, or a straight line from `value` to `to` that ends at epoch `end`."""

    start: float
    value: float
    end: float | None = None
    to: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole training run for `machines` machines of `gpus_per_machine` GPUs (or ranks), all lists sorted by start.

    Learning rates are for the global batch the recipe was written for (`batch` x `gpus`). With another number of
    ranks, `keep` says what stays: that global batch, shared out, or the batch per GPU, at a learning rate in
    proportion. `ranks` is the number it is run with (0: as written), `rule` how it was chosen for them, in words.

    Training images are cropped at random and resized; with `padding` they are kept at their size instead, padded by
    so many mirrored pixels and cropped back. Validation images are resized to `border` times the size, then cropped.
    `memory_gib` is that of the GPUs the batches were chosen for; `eval_batch` is per GPU; `rect_multiple` is what the
    long side of a rectangular validation image is rounded down to, in pixels; `log_every` counts steps.
    """

    name: str
    scale: str
    machines: int
    gpus_per_machine: int
    model: str
    epochs: int
    data: tuple[DataPhase, ...]
    lr: tuple[Ramp, ...]
    momentum: tuple[Ramp, ...] = (Ramp(0, 0.9),)
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_norms: bool = False
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    flip: bool = True
    padding: int = 0
    border: float = 1.14
    eval_batch: int = 128
    rect_multiple: int = 8
    memory_gib: int = 16
    log_every: int = 20
    note: str = ""
    ranks: int = 0
    keep: Keep = "global-batch"
    rule: str = ""

    def __post_init__(self) -> None:
        for phases in (self.data, self.lr, self.momentum):
            starts = [phase.start for phase in phases]
            if not starts or starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= self.epochs:
                raise ValueError(f"{self.name}: phases must start at 0, rise, and lie before epoch {self.epochs}")
        if any((ramp.to is None) != (ramp.end is None) for ramp in (*self.lr, *self.momentum)):
            raise ValueError(f"{self.name}: `end` and `to` go together")

    @property
    def gpus(self) -> int:
        """How many ranks the recipe was written for."""
        return self.machines * self.gpus_per_machine
