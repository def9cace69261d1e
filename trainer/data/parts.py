"""`python -m trainer parts`: a packing in parts, for many machines; put together it is the same to the byte.

`plan` lists a source and says which images each part has; `pack` packs one part, given its images one after the other
in a file; `join` makes what is not images of what was noted of all parts. Who brings the images of the source, and lays
those of the parts one after the other, is another's affair. In the folder of the work:

    plan.json          what is packed, and the parts in order: split and number of images of each
    parts/00012.json   the images of a part: class, name, file below the source, offset and bytes in it
    packed/00012/...   a part as it was packed: a data set without indexes
    done/00012.jsonl   its journal; those of parts packed elsewhere are put there too
    joined/...         the data set without its images

No torch here.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO

from trainer.data import pack, packing
from trainer.data.journal import FILE, Journal, Plan, read_shards
from trainer.data.sources import Found, Source
from trainer.errors import TrainerError
from trainer.words import counted

PLAN = "plan.json"
MOST = 4096  # images of a part: some 450 MB of ImageNet, a minute's work
FEWEST = 16  # parts, where there are so many images: there is work for as many machines


@dataclass(frozen=True, slots=True)
class Work:
    """What `plan` found: the data set to be, and split and number of images of each part, in order."""

    how: packing.How
    plan: Plan
    source: str
    classes: tuple[str, ...]
    parts: tuple[tuple[str, int], ...]

    @property
    def images(self) -> int:
        """How many images the source has."""
        return sum(count for _, count in self.parts)


def plan(source: Source, root: Path, folder: Path, how: packing.How) -> int:
    """Divide `source`, which lies at `root`, and write down how; return the number of parts. Raises OSError."""
    size = min(MOST, -(-len(source) // FEWEST))
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    parts: list[tuple[str, int]] = []
    for split in pack.SPLITS:
        found = source.splits[split]
        for start in range(0, len(found), size):
            images = [_described(image, root) for image in found[start : start + size]]
            _write(folder / "parts" / f"{len(parts):05}.json", images)
            parts.append((split, len(images)))
    plan = packing.plan_of(source, how)
    made = {"how": asdict(how), "plan": plan, "source": source.name, "classes": source.classes, "parts": parts}
    _write(folder / PLAN, made)
    return len(parts)


def read(folder: Path, how: dict[str, Any] | None = None) -> Work:
    """Return what `plan` wrote into `folder`, done as `how` says where that differs. Raises TrainerError."""
    try:
        value = json.loads((folder / PLAN).read_text())
        value["how"]["sizes"] = tuple(value["how"]["sizes"])
        made = packing.How(**{**value["how"], **(how or {})})
        parts = tuple((split, count) for split, count in value["parts"])
        return Work(made, value["plan"], value["source"], tuple(value["classes"]), parts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{folder} holds no plan of parts: {error!r}", "`python -m trainer parts plan`") from error


def pack_part(work: Work, folder: Path, number: int, images: Path, stream: TextIO) -> None:
    """Pack part `number`, whose images lie one after the other in the file `images`.

    Raises TrainerError, also when with those of the parts that are done too many images are corrupt.
    """
    split = work.parts[number][0]
    described = _images(folder, number)
    starts = [0, *accumulate(size for *_, size in described)]
    found = [Found(image[0], image[1], str(images), at, image[4]) for image, at in zip(described, starts, strict=False)]
    source = Source(work.source, work.classes, {name: found if name == split else [] for name in pack.SPLITS})
    destination = folder / "packed" / f"{number:05}"
    done = [shard for file in _journals(folder) if file.stem != destination.name for shard in read_shards(file)]
    others = packing.Others(work.images - len(found), sum(len(shard.corrupt) for shard in done))
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with closing(Journal(destination, {**work.plan, "part": number})) as journal:
            packing.Packing(source, destination, work.how, journal, stream, others).go_on()
        (folder / "done").mkdir(exist_ok=True)
        (destination / FILE).rename(folder / "done" / f"{number:05}.jsonl")
    except OSError as error:
        raise packing.cannot_write(destination, error) from error


def join(work: Work, folder: Path, stream: TextIO) -> None:
    """Make all of the data set but its images. Raises TrainerError when a part is not done, or too much is corrupt."""
    missing = [number for number in range(len(work.parts)) if not (folder / f"done/{number:05}.jsonl").is_file()]
    if missing:
        raise TrainerError(
            f"{counted(len(missing), 'part')} not packed yet, {missing[0]} first", "pack them, then join"
        )
    splits: dict[str, list[Found]] = {name: [] for name in pack.SPLITS}
    for number, (split, _) in enumerate(work.parts):
        splits[split] += [Found(*image) for image in _images(folder, number)]
    destination = folder / "joined"
    try:
        destination.mkdir(exist_ok=True)
        (destination / FILE).unlink(missing_ok=True)
        with closing(Journal(destination, work.plan)) as journal:
            journal.shards = [shard for file in _journals(folder) for shard in read_shards(file)]
            made = packing.Packing(Source(work.source, work.classes, splits), destination, work.how, journal, stream)
            made.refuse_too_many()
            for folder_name in work.how.folders:
                for split in pack.SPLITS:
                    (destination / folder_name / split).mkdir(parents=True, exist_ok=True)
            made.finish(work.plan)
    except OSError as error:
        raise packing.cannot_write(destination, error) from error


def _described(image: Found, root: Path) -> list[Any]:
    return [image.class_name, image.name, Path(image.file).relative_to(root).as_posix(), image.offset, image.size]


def _images(folder: Path, number: int) -> list[Any]:
    file = folder / "parts" / f"{number:05}.json"
    try:
        images: list[Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise TrainerError(f"{file} is no part: {error!r}", "`python -m trainer parts plan` writes it") from error
    return images


def _journals(folder: Path) -> list[Path]:
    return sorted((folder / "done").glob("*.jsonl"))


def _write(file: Path, value: Any) -> None:
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(value))
    draft.replace(file)
