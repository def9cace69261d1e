"""From packed images to batches of pixels: random crop or centre crop, resize, flip.

What is done to an image depends on (seed, epoch, index of the image) alone, not on who does it or when. Batches are
uint8 on the CPU, channels last in memory; normalising belongs to the device (models).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.data import arrival, crops, damage, pack
from trainer.data.crops import Ints
from trainer.data.gather import Gathered, empty, gather
from trainer.data.workers import Batch, Room, ahead

UNKNOWN = -1  # the label of a validation image that cannot be decoded: no answer is right


@dataclass(frozen=True, slots=True)
class TrainItem:
    """One rank's share of a step: images `indices` of `folder` in `epoch`, cropped at random to `size` pixels."""

    indices: tuple[int, ...]
    epoch: int
    size: int
    min_scale: float
    folder: str


@dataclass(frozen=True, slots=True)
class EvalItem:
    """Images `indices` of `folder`, short side `short` pixels, then the middle `height` by `width`."""

    indices: tuple[int, ...]
    height: int
    width: int
    short: int
    folder: str


class Images:
    """Turns items into batches. `damage` is what `batches` met that could not be decoded.

    Without `padding`, a random part of a training image is resized. With it, the image is resized whole (the middle of
    it, where it is no square), padded by so many mirrored pixels, and cropped back at random. Packs are opened when
    first used, so that an instance can be sent to worker processes.
    """

    def __init__(
        self, root: Path, *, seed: int, flip: bool, padding: int = 0, max_corrupt: float = damage.SHARE
    ) -> None:
        self._root, self._seed, self._flip, self._padding = root, seed, flip, padding
        self._packs: dict[tuple[str, str], pack.Pack] = {}
        self.damage = damage.Damage(max_corrupt)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_packs": {}}

    def split(self, folder: str, name: str) -> pack.Pack:
        """Return the pack of split `name` ("train", "validation") of `folder`, once it came. Raises TrainerError."""
        if (folder, name) not in self._packs:
            arrival.wait_for(self._root, pack.files(folder, name))
            self._packs[folder, name] = pack.open_split(self._root / folder / name)
        return self._packs[folder, name]

    def __getitem__(self, item: TrainItem | EvalItem) -> Batch:
        return self.make(item, empty)

    def make(self, item: TrainItem | EvalItem, room: Room) -> Batch:
        """Return the batch of `item`; where no more is done to its images than resizing and flipping, in `room`."""
        source = self.split(item.folder, pack.TRAIN if isinstance(item, TrainItem) else pack.VALIDATION)
        if isinstance(item, EvalItem):
            found = _middles(source, item.indices, item.short, room(len(item.indices), item.height, item.width))
        elif self._padding:
            found = self._shifted(source, item)
        else:
            found = self._cropped(source, item, room(len(item.indices), item.size, item.size))
        labels = source.labels[found.indices]
        if isinstance(item, EvalItem):  # what cannot be decoded was not recognised; no other is scored in its place
            labels = np.where(found.indices == np.array(item.indices), labels, UNKNOWN)
        return Batch(found.images, torch.from_numpy(labels), found.replaced)

    def note(self, batch: Batch) -> None:
        """Note what of `batch` could not be decoded. Raises TrainerError once that is too much."""
        if batch.replaced:
            self.damage.note(batch.replaced, max((len(split) for split in self._packs.values()), default=0))

    def _cropped(self, source: pack.Pack, item: TrainItem, out: Tensor) -> Gathered:
        def boxes(at: Ints) -> Ints:
            heights, widths = source.heights[at], source.widths[at]
            return crops.random_boxes(heights, widths, at, min_scale=item.min_scale, seed=self._seed, epoch=item.epoch)

        found = gather(source, item.indices, boxes, out)
        if self._flip:
            for row in np.flatnonzero(crops.flips(self._seed, item.epoch, found.indices)):
                found.images[row] = found.images[row].flip(-1)
        return found

    def _shifted(self, source: pack.Pack, item: TrainItem) -> Gathered:
        found = _middles(source, item.indices, item.size, empty(len(item.indices), item.size, item.size))
        by = crops.shifts(self._seed, item.epoch, found.indices, self._padding)
        flips = crops.flips(self._seed, item.epoch, found.indices) & self._flip
        moved = crops.shift(found.images.permute(0, 2, 3, 1).numpy(), by, self._padding, flips)
        return found._replace(images=torch.from_numpy(moved).permute(0, 3, 1, 2))


def _middles(source: pack.Pack, indices: tuple[int, ...], short: int, out: Tensor) -> Gathered:
    height, width = out.shape[2:]

    def boxes(at: Ints) -> Ints:
        return crops.middle_boxes(source.heights[at], source.widths[at], height, width, short)

    return gather(source, indices, boxes, out)


def batches(
    images: Images, items: Iterable[TrainItem | EvalItem], *, workers: int, pin: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels of each item, in order; `workers` processes work ahead, none means here and now.

    Not pinned they hold only until the next are asked for.

    Raises TrainerError when too many images cannot be decoded.
    """
    made: Iterator[Batch] = map(images.__getitem__, items)
    if workers:
        made = ahead(images, items, workers=workers, pin=pin)
    for batch in made:
        images.note(batch)
        yield batch.images, batch.labels


def eval_items(
    source: pack.Pack, *, size: int, batch: int, rect_multiple: int, folder: str, border: float
) -> list[EvalItem]:
    """Return items that hold every image of the validation split `source` once, `batch` at most in each.

    The short side is resized to `border` times `size` before the crop. With `rect_multiple` 0 that is a square of
    `size` pixels. Else images are sorted by aspect ratio and each batch is cropped to its mean one: the short side
    `size`, the long one a multiple of `rect_multiple`.
    """
    short = int(border * size)
    aspects = source.widths / source.heights
    order = np.argsort(aspects, kind="stable") if rect_multiple else np.arange(len(source))
    items = []
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        height = width = size
        if rect_multiple:
            aspect = float(aspects[chosen].mean())
            width = max(size, int(size * aspect) // rect_multiple * rect_multiple)
            height = max(size, int(size / aspect) // rect_multiple * rect_multiple)
        items.append(EvalItem(tuple(int(i) for i in chosen), height, width, short, folder))
    return items
