"""CIFAR-10 in its official binary form: six files of 10,000 records, a record being a label and 3,072 pixel values.

The values are 32 rows of 32 for red, then green, then blue (https://www.cs.toronto.edu/~kriz/cifar.html). Packed they
become raw pixels. No torch here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data import pack
from trainer.errors import TrainerError

TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
FILES = (*TRAIN, TEST)
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAMES = "batches.meta.txt"  # one class name a line
FOLDER = "cifar-10-batches-bin"  # what the official archive unpacks to
SIDE = 32
RECORD = 1 + pack.CHANNELS * SIDE * SIDE  # bytes

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


def find(source: Path) -> Path | None:
    """Return the folder with the six files, `source` itself or the official one in it; None when it has none."""
    for folder in (source, source / FOLDER):
        if (folder / TEST).is_file() or (folder / TRAIN[0]).is_file():
            return folder
    return None


def is_among(files: Collection[str]) -> bool:
    """Tell whether `find` would find them in a folder with these files, by path."""
    return any(f"{folder}{name}" in files for folder in ("", f"{FOLDER}/") for name in (TEST, TRAIN[0]))


def read(folder: Path) -> dict[str, bytes]:
    """Return the six files in `folder` by name. Raises TrainerError for those missing or cut short, all at once."""
    bodies = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    faults = [f"{name} is missing" for name in FILES if name not in bodies]
    faults += [f"{name} holds no whole records" for name, body in bodies.items() if not body or len(body) % RECORD]
    if faults:
        raise TrainerError(f"{folder} is no CIFAR-10: {'; '.join(faults)}", "scripts/get_cifar10 DIR fetches all of it")
    return bodies


def encode(pixels: Pixels, labels: Labels) -> bytes:
    """Return the records of images `pixels` (n, 32, 32, 3) and their labels (n,)."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(labels), -1)
    return np.concatenate([labels.astype(np.uint8)[:, None], planes], axis=1).tobytes()


def decode(body: bytes) -> tuple[Pixels, Labels]:
    """Return the images (n, 32, 32, 3) and labels (n,) of records; the inverse of `encode`."""
    records = np.frombuffer(body, dtype=np.uint8).reshape(-1, RECORD)
    planes = records[:, 1:].reshape(-1, pack.CHANNELS, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].astype(np.int64)


def plan(bodies: Mapping[str, bytes], name: str) -> dict[str, str]:
    """Return what tells the data set `name` of these six files from another; `dataset.json` keeps it as `packed`."""
    state = hashlib.sha256()
    for file in FILES:
        state.update(bodies[file])
    return {"name": name, "source": state.hexdigest()[:16]}


def write(root: Path, bodies: Mapping[str, bytes], name: str) -> None:
    """Write the packed data set `name` at `root` from the six files. Raises TrainerError for a label above 9."""
    counts = {}
    for split, files in ((pack.TRAIN, TRAIN), (pack.VALIDATION, (TEST,))):
        pixels, labels = decode(b"".join(bodies[file] for file in files))
        if labels.max() >= len(CLASS_NAMES):
            raise TrainerError(f"label {labels.max()} in {', '.join(files)}", "CIFAR-10 has labels from 0 to 9")
        pack.write_raw(root / split, pixels, labels)
        counts[split] = len(labels)
    about = {"name": name, "classes": len(CLASS_NAMES), **counts, "source": "CIFAR-10"}
    about |= {"packed": plan(bodies, name), "class_names": CLASS_NAMES}
    pack.write_about(root, about)
