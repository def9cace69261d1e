"""Where a training's images come from: the interface, and the packed data set behind it.

A source knows nothing of steps or ranks: it is asked for the batches of items, in order. Batches may come from worker
processes that work ahead; they arrive on the rank's device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from trainer import feed, schedule
from trainer.data import arrival, loader, pack, warm
from trainer.data.loader import EvalItem, TrainItem
from trainer.errors import TrainerError
from trainer.recipe import Recipe
from trainer.schedule import Point


class Source(Protocol):
    """Training images, and those to evaluate on where there are any.

    `name` says which data these are; `classes` and `samples` count classes and training images.
    """

    name: str
    classes: int
    samples: int

    def await_images(self, point: Point, say: Callable[[str], None]) -> float:
        """Wait until the images that `point` reads are on this machine; return for how long, in seconds."""
        ...

    def training(self, items: Iterable[TrainItem]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (n, 3, size, size) uint8 and labels (n,) int64 of each item."""
        ...

    def evaluation(self, point: Point, ranks: int) -> list[EvalItem] | None:
        """Return items that hold every validation image once, for `ranks` ranks to share; None without any."""
        ...

    def validation(self, items: list[EvalItem]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (n, 3, height, width) uint8 and labels (n,) int64 of each item."""
        ...

    def damaged(self) -> list[str]:
        """Return the names of images that could not be decoded, met since the last call; others stand in for them."""
        ...


class Packed:
    """The packed data set at `root`, as `recipe` wants its images; `workers` are loader processes per rank.

    With `warms` its images are read into the page cache, in order: one rank of a machine does it for all.
    Raises TrainerError when a split is missing or the copies of different sizes are not of the same images.
    """

    def __init__(
        self,
        root: Path,
        recipe: Recipe,
        device: torch.device,
        *,
        seed: int,
        workers: int,
        max_corrupt: float,
        warms: bool = False,
    ) -> None:
        about = pack.describe(root)
        self.name, self.classes = str(about["name"]), int(about["classes"])
        self._recipe, self._device, self._workers = recipe, device, workers
        self._images = loader.Images(root, seed=seed, flip=recipe.flip, padding=recipe.padding, max_corrupt=max_corrupt)
        self._root = root
        folders = list(dict.fromkeys(phase.folder for phase in recipe.data))
        self._first = schedule.at(recipe, 0).folder
        self.samples = len(self._images.split(self._first, pack.TRAIN))
        for folder in folders:
            if not arrival.on_their_way(root, _files(folder)):
                self._refuse_other_images(folder)
        if warms:
            warm.start([root / folder / split / pack.IMAGES for folder in folders for split in pack.SPLITS])

    def await_images(self, point: Point, say: Callable[[str], None]) -> float:
        """Wait until the images that `point` reads are on this machine; return for how long, in seconds.

        `say` is told what is missing. Raises TrainerError when it can never come, or is not of the same images.
        """
        waited = arrival.wait_for(self._root, _files(point.folder), say)
        self._refuse_other_images(point.folder)
        return waited

    def _refuse_other_images(self, folder: str) -> None:
        count = len(self._images.split(folder, pack.TRAIN))
        if count != self.samples:
            raise TrainerError(
                "the copies of the training images do not hold the same number: "
                f"{self._root / self._first}: {self.samples:,}, {self._root / folder}: {count:,}",
                "pack all sizes from the same images",
            )

    def training(self, items: Iterable[TrainItem]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the random crops of each item."""
        return self._batches(items, self._workers)

    def evaluation(self, point: Point, ranks: int) -> list[EvalItem]:
        """Return items that hold every validation image once, in batches so small that each rank gets some."""
        split = self._images.split(point.folder, pack.VALIDATION)
        return loader.eval_items(
            split,
            size=point.size,
            batch=min(self._recipe.eval_batch, -(-len(split) // ranks)),
            rect_multiple=self._recipe.rect_multiple if point.rect_val else 0,
            folder=point.folder,
            border=self._recipe.border,
        )

    def validation(self, items: list[EvalItem]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the middles of the images of each item."""
        return self._batches(items, min(self._workers, len(items)))

    def damaged(self) -> list[str]:
        """Return the names of images met that others stand in for, each once."""
        return self._images.damage.fresh()

    def _batches(self, items: Iterable[TrainItem] | list[EvalItem], workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        pin = self._device.type == "cuda"
        return feed.to_device(loader.batches(self._images, items, workers=workers, pin=pin), self._device)


def _files(folder: str) -> list[str]:
    return [name for split in pack.SPLITS for name in pack.files(folder, split)]
