"""`python -m trainer pack SRC DST`: all images of a source into the packed format, as they were and in smaller copies.

One process writes, in order; others read and shrink. Killed anywhere and started again it does what is left, and the
result is the same to the byte: images lie in the order of the source, and the journal says how far that has come.
`dataset.json` comes last. No torch here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

import numpy as np
from numpy.typing import NDArray

from trainer.data import damage, pack, shards
from trainer.data.journal import FILE, Journal, Plan, Shard, refuse_another
from trainer.data.progress import Progress
from trainer.data.sources import Source
from trainer.errors import TrainerError

CORRUPT = "corrupt.txt"  # what was left out and why, a line each


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What the data set is called; short sides of the copies in pixels, their JPEG quality; processes that shrink.

    `max_corrupt` is the share of images that may be left out because nothing can decode them. `as_json`: progress is
    lines of JSON.
    """

    name: str
    sizes: tuple[int, ...]
    quality: int
    processes: int
    max_corrupt: float
    as_json: bool = False

    @property
    def folders(self) -> list[str]:
        """Where the images lie, below the data set: as they were, and in each size."""
        return ["", *(f"sz/{size}" for size in self.sizes)]


def run(source: Source, destination: Path, how: How, stream: TextIO) -> bool:
    """Pack `source` into `destination`, or what is left of it; False when it was there already. Says so on `stream`.

    Raises TrainerError: something else is there, too much is corrupt, a file or the disk does not do.
    """
    plan = plan_of(source, how)
    try:
        if _is_there(destination, plan):
            return False
        destination.mkdir(parents=True, exist_ok=True)
        with closing(Journal(destination, plan)) as journal:
            packing = Packing(source, destination, how, journal, stream)
            packing.go_on()
            packing.finish(plan)
    except OSError as error:
        raise cannot_write(destination, error) from error
    return True


def cannot_write(destination: Path, error: OSError) -> TrainerError:
    """Return what to raise when a packing cannot write."""
    return TrainerError(
        f"cannot write {destination}: {error.strerror or error}", "mend it and start again: what is packed is kept"
    )


def plan_of(source: Source, how: How) -> Plan:
    """Return what tells one packing from another."""
    counts = {split: len(found) for split, found in source.splits.items()}
    return {
        "name": how.name,
        "sizes": list(how.sizes),
        "quality": how.quality,
        **counts,
        "source": source.digest()[:16],
    }


def _is_there(destination: Path, plan: Plan) -> bool:
    """Return whether the whole data set is there. Raises TrainerError when it is another one, or something else."""
    if (destination / pack.DATASET).is_file():
        refuse_another(destination, pack.describe(destination).get("packed", {}), plan)
        (destination / FILE).unlink(missing_ok=True)
        return True
    if destination.exists() and not (destination / FILE).is_file() and any(destination.iterdir()):
        raise TrainerError(f"{destination} is there but holds no such data set", "name another folder, or remove it")
    return False


@dataclass(frozen=True, slots=True)
class Others:
    """What a packing of a part is told of the others: how many `images` they have, and how many are `corrupt`."""

    images: int = 0
    corrupt: int = 0


class Packing:
    """One packing between two states of its journal."""

    def __init__(  # noqa: PLR0917 - all that a packing is made of
        self,
        source: Source,
        destination: Path,
        how: How,
        journal: Journal,
        stream: TextIO,
        others: Others | None = None,
    ) -> None:
        self._source, self._root, self._how, self._journal = source, destination, how, journal
        self._others = others or Others()
        self._shards = list(journal.shards)
        self._corrupt = [fault for shard in self._shards for fault in shard.corrupt]
        self._done = sum(shard.count for shard in self._shards)
        self._progress = Progress(stream, len(source), self._done, as_json=how.as_json)
        if self._done:
            self._progress.say(f"{self._done:,} of {len(source):,} images are packed already, going on")

    def go_on(self) -> None:
        """Pack what the journal does not speak of yet."""
        self.refuse_too_many()
        with ExitStack() as stack:
            files = {split: [stack.enter_context(file) for file in self._open(split)] for split in pack.SPLITS}
            for made in shards.in_order(self._tasks(), self._how.processes):
                self._write(files[made.task.split], made)
                self.refuse_too_many()

    def finish(self, plan: Plan) -> None:
        """Write the indexes, and last what says that the data set is whole."""
        counts = {split: self._index(split) for split in pack.SPLITS}
        lines = [f"{name}: {fault}\n" for name, fault in self._corrupt]
        if lines:
            (self._root / CORRUPT).write_text("".join(lines), errors="replace")
        classes = self._source.classes
        about = {"name": self._how.name, "classes": len(classes), **counts, "corrupt": len(lines)}
        about |= {"source": f"packed from {self._source.name}", "packed": dict(plan), "class_names": classes}
        pack.write_about(self._root, about)
        (self._root / FILE).unlink()

    def _open(self, split: str) -> Iterator[IO[bytes]]:
        """Yield the images of `split` in each size, open at the end of what the journal speaks of."""
        rows = self._rows(split)
        for number, folder in enumerate(self._how.folders):
            place = self._root / folder / split
            place.mkdir(parents=True, exist_ok=True)
            file, end = (place / pack.IMAGES).open("ab"), int(rows[:, 4 + 3 * number].sum())
            yield file  # first, so that it is closed whatever happens
            if file.tell() < end:
                raise TrainerError(f"{place / pack.IMAGES} was cut short", f"remove {self._root}, and pack it again")
            file.truncate(end)

    def _tasks(self) -> Iterator[shards.Task]:
        labels = {name: number for number, name in enumerate(self._source.classes)}
        for split in pack.SPLITS:
            found = self._source.splits[split]
            done = sum(shard.count for shard in self._journal.shards if shard.split == split)
            for start in range(done, len(found), shards.SIZE):
                images = found[start : start + shards.SIZE]
                numbers = [labels[image.class_name] for image in images]
                yield shards.Task(split, images, numbers, self._how.sizes, self._how.quality)

    def _write(self, files: list[IO[bytes]], made: shards.Made) -> None:
        for file, body in zip(files, made.bodies, strict=True):
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        shard = Shard(made.task.split, len(made.task.images), made.rows, made.corrupt)
        self._journal.add(shard)
        self._shards.append(shard)
        self._corrupt += made.corrupt
        self._done += shard.count
        for name, fault in made.corrupt:
            self._progress.say(f"left out: {name}: {fault}")
        self._progress.at(self._done, len(self._corrupt))

    def refuse_too_many(self) -> None:
        """Raise TrainerError when more images are corrupt than are borne."""
        count, images = len(self._corrupt) + self._others.corrupt, len(self._source) + self._others.images
        if count > damage.borne(self._how.max_corrupt, images):
            names = ", ".join(name for name, _ in self._corrupt[: damage.FEW])
            raise TrainerError(
                f"{count:,} of {images:,} images cannot be decoded, more than "
                f"{self._how.max_corrupt:.2%}: {names}, ...",
                f"go on without them by a higher --max-corrupt, or mend them and remove {self._root}",
            )

    def _index(self, split: str) -> int:
        """Write the indexes of `split`; return how many images it has."""
        rows, names, start = self._rows(split), [], 0
        if not len(rows):
            raise TrainerError(f"no {split} image of {self._source.name} can be decoded", "is it the right source?")
        for shard in (shard for shard in self._shards if shard.split == split):
            names += [self._source.splits[split][start + position].path for position in shard.rows[:, 0].tolist()]
            start += shard.count
        for number, folder in enumerate(self._how.folders):
            widths, heights, lengths = rows[:, 2 + 3 * number : 5 + 3 * number].T
            columns = {"labels": rows[:, 1], "widths": widths, "heights": heights, "lengths": lengths}
            columns["offsets"] = np.cumsum(lengths) - lengths
            pack.write_index(self._root / folder / split, columns, names)
        return len(rows)

    def _rows(self, split: str) -> NDArray[np.int64]:
        found = [shard.rows for shard in self._shards if shard.split == split]
        width = 2 + 3 * len(self._how.folders)
        return np.concatenate([np.empty((0, width), np.int64), *(rows.reshape(-1, width) for rows in found)])
