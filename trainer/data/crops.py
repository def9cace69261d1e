"""Which part of an image is taken, and how it becomes pixels of the size asked for. Values in, values out.

Images are uint8; boxes are int64 (n, 4): top, left, height, width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data import chance, picture

try:
    import simplejpeg
except ImportError:  # Pillow is two to three times slower, and always there
    simplejpeg = None

Pixels = NDArray[np.uint8]  # (height, width, 3), or (n, height, width, 3)
Ints = NDArray[np.int64]
Lengths = NDArray[np.integer[Any]]  # in pixels
Some = NDArray[np.bool_]

ASPECT = (3 / 4, 4 / 3)  # of random crops
TRIES = 10  # random boxes drawn for an image before its middle is taken
_JPEG = b"\xff\xd8"


def decode(encoded: bytes) -> Pixels:
    """Return the image in `encoded` as RGB. Raises UndecodableError."""
    if simplejpeg is not None and encoded.startswith(_JPEG):
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(encoded, "RGB", fastdct=True, fastupsample=True)
            return pixels
        except ValueError:
            pass  # CMYK, or something in it is odd: Pillow takes more kinds, and judges
    return np.array(picture.decode(encoded))


def resample(stack: Pixels, box: Ints, out: Tensor) -> None:
    """Resize `box` of all images in `stack` (n, height, width, 3), antialiased, into `out` (n, 3, rows, columns)."""
    top, left, height, width = box.tolist()
    part = torch.from_numpy(stack[:, top : top + height, left : left + width]).permute(0, 3, 1, 2)
    if part.shape == out.shape:
        out.copy_(part)
    else:  # torch.nn.functional.interpolate(mode="bilinear", antialias=True), which takes half as long again
        torch.ops.aten._upsample_bilinear2d_aa.out(part, out.shape[2:], False, out=out)


def middle_boxes(heights: Lengths, widths: Lengths, height: int, width: int, short: int) -> Ints:
    """Return what a centre crop of `height` by `width` leaves of images whose short side was resized to `short`."""
    scales = short / np.minimum(heights, widths)
    rows = np.minimum(heights, np.rint(height / scales))
    columns = np.minimum(widths, np.rint(width / scales))
    return _boxes((heights - rows) // 2, (widths - columns) // 2, rows, columns)


def random_boxes(heights: Lengths, widths: Lengths, at: Ints, *, min_scale: float, seed: int, epoch: int) -> Ints:
    """Return a box in each image `at` (n,): at least `min_scale` of its area, its aspect ratio from 3:4 to 4:3.

    Where ten draws do not fit into an image, the largest box in its middle that has such an aspect ratio.
    """
    numbers = chance.uniform(seed, epoch, at, chance.BOX, 2 * TRIES + 2)
    areas = (heights * widths)[:, None] * (min_scale + (1 - min_scale) * numbers[:, :TRIES])
    low, high = map(math.log, ASPECT)
    aspects = np.exp(low + (high - low) * numbers[:, TRIES : 2 * TRIES])
    columns, rows = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))
    fits: Some = (columns > 0) & (columns <= widths[:, None]) & (rows > 0) & (rows <= heights[:, None])
    images, first = np.arange(len(at)), fits.argmax(axis=1)
    rows, columns = rows[images, first], columns[images, first]
    tops = np.floor(numbers[:, -2] * (heights - rows + 1))
    lefts = np.floor(numbers[:, -1] * (widths - columns + 1))
    return np.where(fits[images, first][:, None], _boxes(tops, lefts, rows, columns), _largest(heights, widths))


def _largest(heights: Lengths, widths: Lengths) -> Ints:
    columns = np.minimum(widths, np.rint(heights * ASPECT[1]))
    rows = np.minimum(heights, np.rint(widths / ASPECT[0]))
    return _boxes((heights - rows) // 2, (widths - columns) // 2, rows, columns)


def _boxes(*columns: NDArray[Any]) -> Ints:
    return np.stack(columns, axis=1).astype(np.int64)


def flips(seed: int, epoch: int, indices: Ints) -> Some:
    """Return which of the images `indices` (n,) are mirrored in `epoch`: half of them."""
    numbers = chance.uniform(seed, epoch, indices, chance.FLIP, 1)[:, 0]
    return np.less(numbers, 0.5)


def shifts(seed: int, epoch: int, indices: Ints, padding: int) -> Ints:
    """Return how far down and to the right each image is cropped out of itself and `padding` pixels around it: (n, 2).

    From 0 to twice the padding.
    """
    return np.floor(chance.uniform(seed, epoch, indices, chance.SHIFT, 2) * (2 * padding + 1)).astype(np.int64)


def shift(images: NDArray[np.uint8], by: Ints, padding: int, mirrored: Some) -> NDArray[np.uint8]:
    """Return `images` (n, height, width, 3) padded by mirrored pixels, cropped back at `by` (n, 2), some mirrored.

    The pixel at the edge is not repeated. One look-up for the whole batch: padding, crop and flip only say which pixel
    of the image a pixel of the result is.
    """
    _, height, width, channels = images.shape
    rows = _mirrored(np.arange(height) + by[:, :1] - padding, height)
    columns = _mirrored(np.arange(width) + by[:, 1:] - padding, width)
    columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
    starts = np.arange(len(images))[:, None] * height + rows
    at = starts[:, :, None] * width + columns[:, None, :]
    pixels = np.ascontiguousarray(images).reshape(-1, channels).view(f"V{channels}")[:, 0]
    moved: NDArray[np.uint8] = pixels.take(at).view(np.uint8).reshape(images.shape)
    return moved


def _mirrored(at: Ints, length: int) -> Ints:
    """Return positions on a line that runs to and fro between 0 and `length` - 1."""
    last = max(length - 1, 1)
    there: Ints = np.minimum(last - np.abs(at % (2 * last) - last), length - 1)
    return there
