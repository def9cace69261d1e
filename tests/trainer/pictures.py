"""Pictures for the tests of data: small files of images, and packs of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data import pack


def photo(number: int, width: int = 60, height: int = 40) -> Image.Image:
    """Return a smooth picture in colour, another for every number."""
    across, down = np.linspace(0, 3, width), np.linspace(0, 3, height)[:, None]
    planes = [np.sin(across * (1 + number % 5) + down + plane + number) for plane in range(3)]
    return Image.fromarray((128 + 100 * np.stack(planes, axis=-1)).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", quality: int = 95) -> bytes:
    """Return `image` as a file of this kind."""
    body = io.BytesIO()
    image.save(body, kind, quality=quality)
    return body.getvalue()


def folders(root: Path, train: int, validation: int, classes: int = 3) -> Path:
    """Write images as `root/train/<class>/<file>` and `root/val/...`, wide ones and high ones; return `root`."""
    for split, count in (("train", train), ("val", validation)):
        for number in range(count):
            place = root / split / f"n{number % classes:02}"
            place.mkdir(parents=True, exist_ok=True)
            shape = (72 - number % 7, 48) if number % 2 else (48, 60 + number % 5)
            (place / f"{split}_{number:04}.JPEG").write_bytes(encoded(photo(number, *shape)))
    return root


def raw(root: Path, count: int, side: int = 20) -> NDArray[np.uint8]:
    """Pack `count` images of noise, unencoded, as both splits of the data set `root`; return their pixels."""
    pixels = np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    for split in pack.SPLITS:
        pack.write_raw(root / split, pixels, np.arange(count) % 10)
    (root / pack.DATASET).write_text(json.dumps({"name": "noise", "classes": 10}))
    return pixels


def encode(root: Path, bodies: list[bytes], split: str = pack.TRAIN, width: int = 60, height: int = 40) -> None:
    """Pack files that claim to be images of one size as a split of the data set `root`."""
    with pack.Writer(root / split) as writer:
        for number, body in enumerate(bodies):
            writer.add(body, number % 10, width, height, f"some/{number}.jpg")
    (root / pack.DATASET).write_text(json.dumps({"name": "some", "classes": 10}))
