"""Images made up once and shown again and again: how fast a training is when no disk and no decoder holds it up.

They are noise with labels at random: nothing can be learnt from them, and there is nothing to evaluate on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from trainer.data.loader import EvalItem, TrainItem
from trainer.schedule import Point

NAME = "synthetic"


class Synthetic:
    """A `source.Source` on `device` that holds one batch of the shape asked for last, drawn from `seed`."""

    def __init__(self, classes: int, samples: int, device: torch.device, *, seed: int) -> None:
        self.name, self.classes, self.samples = NAME, classes, samples
        self._device = device
        self._rng = torch.Generator().manual_seed(seed)
        self._shape: tuple[int, ...] = ()
        self._batch = (torch.empty(0), torch.empty(0))

    def await_images(self, point: Point, say: Callable[[str], None]) -> float:
        """Return 0: nothing is waited for."""
        return 0.0

    def training(self, items: Iterable[TrainItem]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same images again and again, for every item of one shape."""
        for item in items:
            yield self._ready(len(item.indices), item.size)

    def evaluation(self, point: Point, ranks: int) -> None:
        """Return None: what means nothing cannot be scored."""

    def validation(self, items: list[EvalItem]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield nothing."""
        return iter(())

    def damaged(self) -> list[str]:
        """Return nothing."""
        return []

    def _ready(self, count: int, size: int) -> tuple[Tensor, Tensor]:
        if self._shape != (count, size):
            shape = (count, size, size, 3)  # as the loader's: channels last in memory
            images = torch.randint(256, shape, generator=self._rng, dtype=torch.uint8).permute(0, 3, 1, 2)
            labels = torch.randint(self.classes, (count,), generator=self._rng)
            self._batch, self._shape = (images.to(self._device), labels.to(self._device)), (count, size)
        return self._batch
