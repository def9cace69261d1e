"""From packed images to batches of pixels: decode, random crop or centre crop, resize, flip.

A random crop depends on (seed, epoch, index of the image) alone, not on who computes it or when. Batches are uint8
on the CPU; normalising belongs to the device (models).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from trainer.data import pack

try:
    import simplejpeg
except ImportError:  # Pillow is two to three times slower, and always there
    simplejpeg = None

Pixels = NDArray[np.uint8]  # (height, width, 3)
Box = tuple[int, int, int, int]  # top, left, height, width

ASPECT = (3 / 4, 4 / 3)  # of random crops
BORDER = 1.14  # before a centre crop the short side is this much longer than the crop
_JPEG = b"\xff\xd8"


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


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Turns items into (images, labels): uint8 (n, 3, height, width) and int64 (n,).

    Packs are opened when first used, so that an instance can be sent to worker processes.
    """

    def __init__(self, root: Path, *, seed: int, flip: bool) -> None:
        self._root, self._seed, self._flip = root, seed, flip
        self._packs: dict[tuple[str, str], pack.Pack] = {}

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_packs": {}}

    def split(self, folder: str, name: str) -> pack.Pack:
        """Return the pack of split `name` ("train", "validation") of `folder`. Raises TrainerError."""
        if (folder, name) not in self._packs:
            self._packs[folder, name] = pack.open_split(self._root / folder / name)
        return self._packs[folder, name]

    def __getitem__(self, item: TrainItem | EvalItem) -> tuple[Tensor, Tensor]:
        source = self.split(item.folder, pack.TRAIN if isinstance(item, TrainItem) else pack.VALIDATION)
        images = [self._one(source, item, index) for index in item.indices]
        return torch.stack(images), torch.from_numpy(source.labels[list(item.indices)])

    def _one(self, source: pack.Pack, item: TrainItem | EvalItem, index: int) -> Tensor:
        pixels = decode(source.encoded(index))
        height, width = pixels.shape[:2]
        if isinstance(item, EvalItem):
            return crop(pixels, middle(height, width, item), item.height, item.width)
        rng = Random(self._seed << 80 | item.epoch << 48 | index)  # noqa: S311 crops are no secret
        image = crop(pixels, random_box(height, width, item.min_scale, rng), item.size, item.size)
        return image.flip(-1) if self._flip and rng.random() < 0.5 else image


def decode(encoded: bytes) -> Pixels:
    """Return the image in `encoded` as RGB."""
    if simplejpeg is not None and encoded.startswith(_JPEG):
        pixels: Pixels = simplejpeg.decode_jpeg(encoded, "RGB", fastdct=True, fastupsample=True)
        return pixels
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def crop(pixels: Pixels, box: Box, height: int, width: int) -> Tensor:
    """Return `box` of `pixels` resized to (3, height, width), antialiased, uint8."""
    top, left, rows, columns = box
    part = torch.tensor(pixels[top : top + rows, left : left + columns]).permute(2, 0, 1)
    if (rows, columns) == (height, width):
        return part
    return interpolate(part[None], (height, width), mode="bilinear", antialias=True)[0]


def random_box(height: int, width: int, min_scale: float, rng: Random) -> Box:
    """Return a box of at least `min_scale` of the area and an aspect ratio from 3:4 to 4:3, anywhere in the image.

    Where ten draws do not fit into the image, the largest box in the middle that has such an aspect ratio.
    """
    for _ in range(10):
        area = height * width * rng.uniform(min_scale, 1.0)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return rng.randint(0, height - rows), rng.randint(0, width - columns), rows, columns
    columns, rows = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def middle(height: int, width: int, item: EvalItem) -> Box:
    """Return the box of the image that `item` asks for: what a centre crop leaves after the resize."""
    scale = item.short / min(height, width)
    rows, columns = min(height, round(item.height / scale)), min(width, round(item.width / scale))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def batches(
    images: Images, items: Iterable[TrainItem] | Iterable[EvalItem], *, workers: int, pin: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batch of each item, in order; `workers` processes work ahead, none means here and now."""
    if workers == 0:
        for item in items:
            yield images[item]
        return
    yield from DataLoader(
        images, batch_size=None, sampler=items, num_workers=workers, prefetch_factor=4, pin_memory=pin
    )


def eval_items(source: pack.Pack, *, size: int, batch: int, rect_multiple: int, folder: str) -> list[EvalItem]:
    """Return items that hold every image of the validation split `source` once, `batch` at most in each.

    With `rect_multiple` 0 the images are cropped to squares of `size` pixels. Else they are sorted by aspect ratio
    and each batch is cropped to its mean one: the short side `size`, the long one a multiple of `rect_multiple`.
    """
    short = int(BORDER * size)
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
