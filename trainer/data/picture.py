"""Encoded images by way of Pillow: what they show, and smaller copies of them. Values in, values out; no torch here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from trainer.data.damage import UndecodableError


class Copies(NamedTuple):
    """An image as it was and smaller: what is `encoded` and its `shapes` (width, height), one of each per size."""

    encoded: tuple[bytes, ...]
    shapes: tuple[tuple[int, int], ...]


def decode(encoded: bytes) -> Image.Image:
    """Return the image in `encoded` as RGB. Raises UndecodableError."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.convert("RGB")
    except MemoryError:
        raise
    except UnidentifiedImageError as error:  # whose message names an address in memory
        raise UndecodableError("it is no image of a kind that Pillow knows") from error
    except Exception as error:  # Pillow's plugins raise whatever their parsing stumbles over
        raise UndecodableError(str(error) or repr(error)) from error


def copies(encoded: bytes, sizes: Sequence[int], quality: int) -> Copies:
    """Return `encoded` itself, and copies of it with a short side of each of `sizes` pixels, JPEGs of `quality`.

    As the set of 2018 was made: bilinear over all pixels that fall into one, the long side rounded down. An image that
    is no larger than asked for is copied. Raises UndecodableError.
    """
    image = decode(encoded)
    found = [(encoded, image.size)]
    for size in sizes:
        short = min(image.size)
        if short <= size:
            found.append((encoded, image.size))
            continue
        shape = (image.width * size // short, image.height * size // short)
        body = io.BytesIO()
        image.resize(shape, Image.Resampling.BILINEAR).save(body, "JPEG", quality=quality)
        found.append((body.getvalue(), shape))
    bodies, shapes = zip(*found, strict=True)
    return Copies(bodies, shapes)
