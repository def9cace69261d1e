"""A folder that is made whole or not at all: under another name beside its place, then renamed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from trainer.errors import TrainerError

Say = Callable[[str], None]


def build(destination: Path, complete: Callable[[Path], bool], make: Callable[[Path, Path], None], say: Say) -> bool:
    """Make the folder `destination`; False when a `complete` one was there already.

    `make` gets the folder to make, which does not exist yet, and one for what it needs meanwhile. Nothing is left of
    either when it fails. Raises TrainerError when something else is at `destination`, and what `make` raises.
    """
    if complete(destination):
        say(f"{destination} is there already")
        return False
    if destination.exists():
        raise TrainerError(f"{destination} is there but holds no such data set", "name another folder, or remove it")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as folder:
        made, meanwhile = Path(folder) / "made", Path(folder) / "meanwhile"
        meanwhile.mkdir()
        make(made, meanwhile)
        try:
            made.rename(destination)
        except OSError:
            if not complete(destination):  # else somebody else was quicker
                raise
    say(f"{destination} is ready")
    return True
