"""The packed format: all images of a split in one file, with an index, so that a cold disk or S3 is read in order.

A split is a folder with `images.bin` (all images one after the other) and `index.npz` (arrays `offsets`, `lengths` in
bytes, `labels`, `widths`, `heights` in pixels; one entry per image). Images are encoded, as they were; or, where the
index has `encoding` "raw", they are all of one size and stored as RGB pixels, height by width by 3. `names.txt` may
say what each image was called, a line each. The data set around it has `dataset.json` (name, classes, where it comes
from) and the folders `train` and `validation`, below `sz/160` and the like for resized copies. May not import torch:
packing needs none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import TrainerError

IMAGES = "images.bin"
INDEX = "index.npz"
NAMES = "names.txt"
DATASET = "dataset.json"
TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)
RAW = "raw"
CHANNELS = 3
_COLUMNS = {"offsets": np.int64, "lengths": np.int64, "labels": np.int64, "widths": np.int32, "heights": np.int32}
_HINT = "`python -m trainer pack SRC DST` packs images, `python -m trainer digits DST` makes a small data set"

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Pack:
    """A split opened for reading: `bytes_` is memory-mapped, the arrays after it have one entry per image.

    `pixels` is None where images are encoded; else all of them, uint8 (n, height, width, 3), memory-mapped too.
    """

    folder: Path
    bytes_: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    pixels: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> bytes:
        """Return image `index` as it was packed (JPEG, PNG)."""
        start = int(self.offsets[index])
        return self.bytes_[start : start + int(self.lengths[index])].tobytes()

    def name(self, index: int) -> str:
        """Return what to call image `index`: its number, and its name in the source where that is known."""
        try:
            with (self.folder / NAMES).open() as lines:
                name = next(line for number, line in enumerate(lines) if number == index)
        except (OSError, StopIteration):
            return f"{self.folder.name} image {index}"
        return f"{self.folder.name} image {index} ({name.rstrip()})"


@dataclass(slots=True)
class Writer:
    """Writes a split into `folder`, a context manager. The index comes last: a split without one is not there."""

    folder: Path
    _images: IO[bytes] | None = None
    _rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _end: int = 0

    def __enter__(self) -> Writer:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._images = (self.folder / IMAGES).open("wb")
        return self

    def add(self, encoded: bytes, label: int, width: int, height: int, name: str = "") -> None:
        """Append one encoded image of `width` by `height` pixels and class `label`. All have a `name`, or none."""
        if self._images is None:
            raise ValueError("a Writer is used inside its `with` block")
        self._images.write(encoded)
        self._rows.append((self._end, len(encoded), label, width, height))
        if name:
            self._names.append(name)
        self._end += len(encoded)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._images is not None:
            self._images.close()
        if error is None:
            rows = np.array(self._rows, dtype=np.int64).reshape(-1, len(_COLUMNS)).T
            write_index(self.folder, dict(zip(_COLUMNS, rows, strict=True)), self._names)


def write_index(folder: Path, columns: Columns, names: Sequence[str] = (), encoding: str = "") -> None:
    """Write the index of the images in `folder`: an array for each column, and their names where they have some."""
    if names:
        lines = (name.encode("unicode_escape").decode() for name in names)
        (folder / NAMES).write_text("\n".join(lines) + "\n")
    arrays: dict[str, Any] = {name: columns[name].astype(kind) for name, kind in _COLUMNS.items()}
    if encoding:
        arrays["encoding"] = np.array(encoding)
    np.savez(folder / INDEX, **arrays)


def write_raw(folder: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write a split of images that all have one size, `pixels` (n, height, width, 3), without encoding them."""
    count, height, width, channels = pixels.shape
    length = height * width * channels
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / IMAGES).open("wb") as file:
        file.write(np.ascontiguousarray(pixels).data)
    columns = {
        "offsets": np.arange(count) * length,
        "lengths": np.full(count, length),
        "labels": labels,
        "widths": np.full(count, width),
        "heights": np.full(count, height),
    }
    write_index(folder, columns, encoding=RAW)


def files(folder: str, split: str) -> list[str]:
    """Return the files of a split that are read in a training, relative to the data set."""
    return [(Path(folder) / split / name).as_posix() for name in (INDEX, IMAGES)]


def read_index(folder: Path) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the columns of the index in `folder`, and the encoding it names. Raises OSError, KeyError, ValueError."""
    with np.load(folder / INDEX, allow_pickle=False) as file:
        columns = {name: np.ascontiguousarray(file[name], dtype=kind) for name, kind in _COLUMNS.items()}
        return columns, str(file["encoding"]) if "encoding" in file else ""


def open_split(folder: Path) -> Pack:
    """Return the split in `folder`. Raises TrainerError when it is missing, cut short or not one."""
    try:
        columns, encoding = read_index(folder)
        images = np.asarray(np.memmap(folder / IMAGES, dtype=np.uint8, mode="r"))
    except (OSError, KeyError, ValueError) as error:
        raise TrainerError(f"no packed images in {folder}: {error}", _HINT) from error
    if not len(columns["labels"]) or int((columns["offsets"] + columns["lengths"]).max()) != len(images):
        raise TrainerError(f"{folder / IMAGES} does not fit its index", "it was copied only in part: copy it again")
    if encoding not in {"", RAW}:
        raise TrainerError(f"{folder} holds images encoded as {encoding!r}", "a newer version of the trainer packed it")
    pixels = images.reshape(-1, columns["heights"][0], columns["widths"][0], CHANNELS) if encoding == RAW else None
    return Pack(folder, images, **columns, pixels=pixels)


def write_about(root: Path, about: Mapping[str, Any]) -> None:
    """Write `dataset.json` of the data set at `root`, whole or not at all; it comes last."""
    draft = root / f".{DATASET}"
    with draft.open("w") as file:
        file.write(json.dumps(about, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(root / DATASET)


def describe(root: Path) -> dict[str, Any]:
    """Return `dataset.json` of the data set at `root`. Raises TrainerError when there is none."""
    if not root.is_dir():
        raise TrainerError(f"no data in {root}: no such folder", _HINT)
    if not (root / DATASET).is_file():
        raise TrainerError(
            f"no data in {root}: it has no {DATASET}", f"where it was being packed, finish that; {_HINT}"
        )
    try:
        value = json.loads((root / DATASET).read_text())
        return {**value, "classes": int(value["classes"]), "name": str(value["name"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{root} is not a packed data set: {error!r}", _HINT) from error


def is_complete(root: Path) -> bool:
    """Return whether a whole data set is at `root`: as many images in both splits as it says."""
    try:
        counts = [len(open_split(root / split)) for split in SPLITS]
        about = describe(root)
        return counts == [about[split] for split in SPLITS]
    except (TrainerError, KeyError):
        return False
