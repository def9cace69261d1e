"""From indices into a pack to a batch of resized images, whichever way the pack stores them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.data import crops, pack
from trainer.data.crops import Ints, Pixels
from trainer.data.damage import UndecodableError
from trainer.errors import TrainerError

SUBSTITUTES = 100  # images tried in the place of one that cannot be decoded

Boxes = Callable[[Ints], Ints]  # from indices (n,) to the boxes (n, 4) to take of these images


class Gathered(NamedTuple):
    """`images` uint8 (n, 3, height, width), channels last in memory; `indices` (n,) says which they are.

    Those that could not be decoded are called `replaced`: the next one that can be stands in for each.
    """

    images: Tensor
    indices: Ints
    replaced: tuple[str, ...] = ()


def gather(source: pack.Pack, wanted: tuple[int, ...], boxes: Boxes, out: Tensor) -> Gathered:
    """Return the boxes of images `wanted`, each resized into `out` (as `Gathered.images`). Raises TrainerError."""
    indices = np.array(wanted, dtype=np.int64)
    if source.pixels is not None:
        return Gathered(_raw(source.pixels[indices], boxes(indices), out), indices)
    return _encoded(source, indices, boxes, out)


def _raw(stack: Pixels, boxes: Ints, images: Tensor) -> Tensor:
    if (boxes == boxes[0]).all():
        crops.resample(stack, boxes[0], images)
        return images
    for row, box in enumerate(boxes):
        crops.resample(stack[row : row + 1], box, images[row : row + 1])
    return images


def _encoded(source: pack.Pack, indices: Ints, boxes: Boxes, images: Tensor) -> Gathered:
    replaced = []
    for row, (index, box) in enumerate(zip(indices.tolist(), boxes(indices), strict=True)):
        out = images[row : row + 1]
        try:
            crops.resample(_decode(source, index)[None], box, out)
        except UndecodableError:
            replaced.append(source.name(index))
            pixels, indices[row] = _substitute(source, index)
            crops.resample(pixels[None], boxes(indices[row : row + 1])[0], out)
    return Gathered(images, indices, tuple(replaced))


def _decode(source: pack.Pack, index: int) -> Pixels:
    pixels = crops.decode(source.encoded(index))
    if pixels.shape[:2] != (source.heights[index], source.widths[index]):
        raise UndecodableError("it has another size than the index says")
    return pixels


def _substitute(source: pack.Pack, index: int) -> tuple[Pixels, int]:
    """Return the first image after `index` that can be decoded, and where it is."""
    for other in range(index + 1, index + 1 + SUBSTITUTES):
        try:
            return _decode(source, other % len(source)), other % len(source)
        except UndecodableError:
            continue
    raise TrainerError(
        f"{source.name(index)} and the {SUBSTITUTES} after it cannot be decoded", "copy or pack the data set again"
    )


def empty(count: int, height: int, width: int) -> Tensor:
    """Return room for `count` images, channels last in memory."""
    return torch.empty(count, height, width, pack.CHANNELS, dtype=torch.uint8).permute(0, 3, 1, 2)
