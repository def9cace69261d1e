"""Where images to pack come from: folders of classes, or tars of them, listed in an order that is always the same.

A split is `train/<class>/<file>` or a tar of that, with or without the outer folder; or a tar of a tar per class; or,
with a file that says the class of each, files in no folder at all. No torch here.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from trainer.data import pack
from trainer.errors import TrainerError

PLACES = {  # what a split may be called, a folder or a tar
    pack.TRAIN: ("train", "ILSVRC2012_img_train"),
    pack.VALIDATION: ("validation", "val", "ILSVRC2012_img_val"),
}
KINDS = (".jpg", ".jpeg", ".png")
SHOWN = 3  # faults of one kind that are named
LAYOUT = "there must be train/<class>/<image> and val/<class>/<image>, as folders or tars"


class Found(NamedTuple):
    """An image in the source: its class and name, and `size` bytes at `offset` of `file`."""

    class_name: str
    name: str
    file: str
    offset: int
    size: int

    @property
    def path(self) -> str:
        """What a person calls it; what cannot be printed is escaped."""
        return f"{self.class_name}/{self.name}".encode(errors="backslashreplace").decode()

    def read(self) -> bytes:
        """Return its bytes. Raises OSError."""
        with Path(self.file).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class Source:
    """All images of a source by split, sorted by class and name; `classes` are those of the training images."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, list[Found]]

    def __len__(self) -> int:
        return sum(len(found) for found in self.splits.values())

    def digest(self) -> str:
        """Return a digest of what is in it, by class, name and size, wherever it lies."""
        state = hashlib.sha256()
        for split, found in self.splits.items():
            for image in found:
                state.update(f"{split}\0{image.class_name}\0{image.name}\0{image.size}\n".encode(errors="replace"))
        return state.hexdigest()


def open_source(
    root: Path, labels: Path | None = None, elsewhere: Iterable[tuple[str, int]] = (), *, whole: bool = True
) -> Source:
    """List what is at `root`, a folder or a tar; `labels` says `name class` of validation images, a line each.

    `elsewhere` are files, by path below `root` and size in bytes, that belong there as well and need not be there now.
    `whole` False: a tar that is smaller here than `elsewhere` says is its beginning, and what may come later in it is
    not missed.
    Raises TrainerError for all that is wrong with it, at once.
    """
    if not root.exists():
        raise TrainerError(f"no images in {root}: no such file or folder", LAYOUT)
    known = _read_labels(labels) if labels else {}
    read = _Read(root, dict(elsewhere), whole=whole)
    try:
        splits = _find_in_one_tar(root) if root.is_file() else {name: list(read.split(name)) for name in PLACES}
    except OSError as error:
        raise TrainerError(f"cannot read {error.filename or root}: {error.strerror}", "make it readable") from error
    faults = [f"no {name} images" for name, found in splits.items() if not found and name not in read.unseen]
    if known:
        unknown = [found.name for found in splits[pack.VALIDATION] if found.name not in known]
        faults += _fault(unknown, f"no line in {labels} for")
        chosen = (found for found in splits[pack.VALIDATION] if found.name in known)
        splits[pack.VALIDATION] = [found._replace(class_name=known[found.name]) for found in chosen]
    for name, found in splits.items():
        faults += _fault([image.name for image in found if not image.class_name], f"{name} images in no class:")
    classes = sorted({found.class_name for found in splits[pack.TRAIN]} - {""})
    if pack.TRAIN not in read.unseen:
        strange = sorted({found.class_name for found in splits[pack.VALIDATION]} - {*classes, ""})
        faults += _fault(strange, "classes of validation images that no training image has:")
    if read.broken and not faults:
        raise read.broken[0]
    if faults:
        hint = LAYOUT if labels else f"{LAYOUT}; --val-labels FILE names the classes of flat validation images"
        faults = [*(error.message for error in read.broken), *faults]
        raise TrainerError(f"{root} cannot be packed: {'; '.join(faults)}", hint)
    return Source(root.resolve().name, tuple(classes), {name: sorted(found) for name, found in splits.items()})


def _fault(names: list[str], what: str) -> list[str]:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return [f"{what} {', '.join(sorted(names)[:SHOWN])}{more}"] if names else []


def _read_labels(file: Path) -> dict[str, str]:
    form = "each line must be `name class`, for the file name of a validation image"
    try:
        lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainerError(f"cannot read {file}: {error}", form) from error
    wrong = [" ".join(words) for words in lines if len(words) != 2]
    if wrong or not lines:
        raise TrainerError(f"{file} says no `name class` in {wrong[0]!r}" if wrong else f"{file} is empty", form)
    return {name: class_name for name, class_name in lines}  # noqa: C416  (mypy cannot see that each line is a pair)


def _find_in_one_tar(path: Path) -> dict[str, list[Found]]:
    splits = {place: name for name, places in PLACES.items() for place in places}
    images: dict[str, list[Found]] = {name: [] for name in PLACES}
    for place, found in _in_tar(path, splits):
        images[splits[place]].append(found)
    return images


def _listed(root: Path, files: Iterable[tuple[str, int]]) -> dict[str, list[Found]]:
    """Return the images among `files` by the folder that is their split's."""
    places: dict[str, list[Found]] = {}
    for path, size in files:
        folders, name = path.split("/")[:-1], path.rpartition("/")[2]
        if len(folders) in {1, 2} and _is_image(name):
            found = Found("".join(folders[1:]), name, str(root / path), 0, size)
            places.setdefault(folders[0], []).append(found)
    return places


class _Read:
    """The splits of the folder `root`; `sizes` of what belongs there and is elsewhere, `whole` as of `open_source`.

    `unseen` are the splits of which there is more than was seen, `broken` says of which tars nothing can be.
    """

    def __init__(self, root: Path, sizes: Mapping[str, int], *, whole: bool) -> None:
        self._root, self._sizes, self._whole = root, sizes, whole
        self._listed = _listed(root, sizes.items())
        self.unseen: set[str] = set()
        self.broken: list[TrainerError] = []

    def split(self, name: str) -> Iterator[Found]:
        """Yield the images of a split."""
        for place in PLACES[name]:
            folder, tar = self._root / place, self._root / f"{place}.tar"
            if folder.is_dir() or place in self._listed:
                yield from _in_folder(folder) if folder.is_dir() else ()
                yield from self._listed.get(place, ())
                return
            if tar.is_file():
                yield from self._in_tar(name, tar)
                return

    def _in_tar(self, name: str, tar: Path) -> Iterator[Found]:
        # A tar that was cut where a member ends reads as one that ends there.
        if not self._whole and tar.stat().st_size < self._sizes.get(tar.name, 0):
            self.unseen.add(name)
        try:
            for _, found in _in_tar(tar, ()):
                yield found
        except TrainerError as error:
            self.unseen.add(name)
            if self._whole or not _begins(tar):
                self.broken.append(error)


def _begins(path: Path) -> bool:
    """Tell whether a file begins as a tar does."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except (tarfile.TarError, EOFError):
        return False


def _in_folder(folder: Path) -> Iterator[Found]:
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    yield from _files("", inside)
    for entry in inside:
        if entry.is_dir():
            with os.scandir(entry) as files:
                yield from _files(entry.name, files)


def _files(class_name: str, entries: Iterable[os.DirEntry[str]]) -> Iterator[Found]:
    for entry in entries:
        if _is_image(entry.name) and entry.is_file():
            yield Found(class_name, entry.name, entry.path, 0, entry.stat().st_size)


def _in_tar(path: Path, places: Collection[str]) -> Iterator[tuple[str, Found]]:
    """Yield the images below a folder of the tar that is called one of `places`, and which; all, without any."""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in _members(archive):
                place, inside = _below(PurePosixPath(member.name), places)
                if inside.suffix == ".tar":
                    for image in _in_inner_tar(archive.extractfile(member)):
                        at = member.offset_data + image.offset_data
                        yield place, Found(inside.stem, PurePosixPath(image.name).name, str(path), at, image.size)
                elif _is_image(inside.name):
                    found = Found(inside.parent.name, inside.name, str(path), member.offset_data, member.size)
                    yield place, found
    except (tarfile.TarError, EOFError) as error:
        raise TrainerError(
            f"{path} cannot be read as a tar: {error}", "a compressed tar must be unpacked, or decompressed, first"
        ) from error


def _in_inner_tar(file: IO[bytes] | None) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        yield from (member for member in _members(archive) if _is_image(PurePosixPath(member.name).name))


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the files in a tar, without keeping a million of them in memory as tarfile does."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        if member.isfile():
            yield member


def _below(path: PurePosixPath, places: Collection[str]) -> tuple[str, PurePosixPath]:
    """Return the folder in `path` that is called one of `places`, and the rest of it; an empty rest where none is."""
    if not places:
        return "", path
    for depth, part in enumerate(path.parts[:-1]):
        if part in places:
            return part, PurePosixPath(*path.parts[depth + 1 :])
    return "", PurePosixPath()


def _is_image(name: str) -> bool:
    return name.lower().endswith(KINDS) and not name.startswith(".")
