"""What the command line asked of a training. Values only; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.data import damage
from trainer.table import Asked

SYNTHETIC_CLASSES = 1000
SYNTHETIC_SAMPLES = {"full": 1_281_167, "sandbox": 4_500}  # as many as ImageNet and the digits have


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training to do. What is None is decided when the ranks have met, from recipe, checkpoint and hardware.

    `root` is the packed data set; without one `samples` synthetic images of `classes` classes are shown. `epochs` and
    `steps` end the recipe early; `workers` are loader processes per rank, and `max_corrupt` is the share of the images
    that they may fail to decode. `numbers` is the precision wanted, `compress` that of gradients on the wire,
    `graphs` whether steps are recorded, `micro_batch` the most images of a rank computed at once. `checkpoint_seconds`
    is the time between checkpoints within a phase, `log_every` counts the steps between progress lines.
    """

    asked: Asked
    root: Path | None
    classes: int = 0
    samples: int = 0
    epochs: int | None = None
    steps: int | None = None
    seed: int = 0
    workers: int = 0
    max_corrupt: float = damage.SHARE
    numbers: str = "auto"
    compress: str = "auto"
    compiled: bool = False
    graphs: str = "auto"
    micro_batch: int | None = None
    checkpoint_seconds: float = 60.0
    log_every: int | None = None
