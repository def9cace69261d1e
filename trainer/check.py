"""What of a job cannot work, found on each rank before torch is imported: all faults of the data set at once.

Which table is used may depend on a checkpoint that only rank 0 has, so here a data set is refused only when it serves
none that is possible; the one chosen is looked at again when the ranks have met.
"""

from __future__ import annotations

from pathlib import Path

from trainer import table
from trainer.data import arrival, pack
from trainer.errors import TrainerError
from trainer.recipe import Recipe
from trainer.table import Asked
from trainer.words import counted


def data(root: Path, asked: Asked, ranks: int) -> None:
    """Raise TrainerError when the packed data set at `root` cannot serve `ranks` ranks."""
    recipes = table.possible(asked, ranks)
    pack.describe(root)
    lacks = [missing(root, recipe) for recipe in recipes]
    if all(lacks):
        raise TrainerError(
            f"no packed images in {', '.join(map(str, lacks[0]))}",
            f"{asked.recipe} needs them there: `python -m trainer pack` makes them, `describe` shows which",
        )
    usable = recipes[lacks.index([])]
    arrival.wait_for(root, pack.files(usable.data[0].folder, pack.TRAIN))
    images = len(pack.open_split(root / usable.data[0].folder / pack.TRAIN))
    if ranks > images:
        raise TrainerError(
            f"{counted(ranks, 'rank')} cannot share {counted(images, 'image')}", "launch fewer nodes or processes"
        )


def missing(root: Path, recipe: Recipe) -> list[Path]:
    """Return the splits that `recipe` reads and `root` neither has nor is getting. Raises TrainerError."""
    folders = dict.fromkeys(phase.folder for phase in recipe.data)
    splits = [(folder, split) for folder in folders for split in (pack.TRAIN, pack.VALIDATION)]
    return [root / folder / split for folder, split in splits if not _comes(root, folder, split)]


def _comes(root: Path, folder: str, split: str) -> bool:
    index = (Path(folder) / split / pack.INDEX).as_posix()
    return (root / index).is_file() or bool(arrival.on_their_way(root, [index])) or (root / index).is_file()
