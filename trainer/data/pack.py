"""The packed format: all images of a split in one file, with an index, so that a cold disk or S3 is read in order.

A split is a folder with `images.bin` (encoded images, one after the other, as they were) and `index.npz` (arrays
`offsets`, `lengths` in bytes, `labels`, `widths`, `heights` in pixels; one entry per image). The data set around it
has `dataset.json` (name, classes, where it comes from) and the folders `train` and `validation`, below `sz/160` and the
like for resized copies. May not import torch: packing needs none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import TrainerError

IMAGES = "images.bin"
INDEX = "index.npz"
DATASET = "dataset.json"
TRAIN = "train"
VALIDATION = "validation"
_COLUMNS = {"offsets": np.int64, "lengths": np.int64, "labels": np.int64, "widths": np.int32, "heights": np.int32}


@dataclass(frozen=True, slots=True)
class Pack:
    """A split opened for reading; `bytes_` is memory-mapped, every other field has one entry per image."""

    bytes_: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> bytes:
        """Return image `index` as it was packed (JPEG, PNG)."""
        start = int(self.offsets[index])
        return self.bytes_[start : start + int(self.lengths[index])].tobytes()


@dataclass(slots=True)
class Writer:
    """Writes a split into `folder`, a context manager. The index comes last: a split without one is not there."""

    folder: Path
    _images: IO[bytes] | None = None
    _rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    _end: int = 0

    def __enter__(self) -> Writer:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._images = (self.folder / IMAGES).open("wb")
        return self

    def add(self, encoded: bytes, label: int, width: int, height: int) -> None:
        """Append one encoded image of `width` by `height` pixels and class `label`."""
        if self._images is None:
            raise ValueError("a Writer is used inside its `with` block")
        self._images.write(encoded)
        self._rows.append((self._end, len(encoded), label, width, height))
        self._end += len(encoded)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._images is not None:
            self._images.close()
        if error is None:
            columns = np.array(self._rows, dtype=np.int64).reshape(-1, len(_COLUMNS)).T
            types = _COLUMNS.items()
            arrays = {name: column.astype(type_) for (name, type_), column in zip(types, columns, strict=True)}
            np.savez(self.folder / INDEX, **arrays)  # type: ignore[arg-type]


def open_split(folder: Path) -> Pack:
    """Return the split in `folder`. Raises TrainerError when it is missing, cut short or not one."""
    try:
        with np.load(folder / INDEX, allow_pickle=False) as file:
            columns = {name: np.ascontiguousarray(file[name], dtype=kind) for name, kind in _COLUMNS.items()}
        images = np.memmap(folder / IMAGES, dtype=np.uint8, mode="r")
    except (OSError, KeyError, ValueError) as error:
        raise TrainerError(
            f"no packed images in {folder}: {error}", "`python -m trainer digits DIR` makes a small data set"
        ) from error
    if not len(columns["labels"]) or int((columns["offsets"] + columns["lengths"]).max()) != len(images):
        raise TrainerError(f"{folder / IMAGES} does not fit its index", "it was copied only in part: copy it again")
    return Pack(images, **columns)


def describe(root: Path) -> dict[str, Any]:
    """Return `dataset.json` of the data set at `root`. Raises TrainerError when there is none."""
    if not root.is_dir():
        raise TrainerError(f"no data in {root}: no such folder", "`python -m trainer digits DIR` makes a small one")
    try:
        value = json.loads((root / DATASET).read_text())
        return {**value, "classes": int(value["classes"]), "name": str(value["name"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainerError(
            f"{root} is not a packed data set: {error!r}", "`python -m trainer digits DIR` makes a small one"
        ) from error
