"""Machine images of the sandbox's hosts: the home and the Python environment of one, for others to begin with.

`images/<ami>/` below the sandbox's folder holds `home`, `py`, and in `of` the folder of the host it was taken of. Only
files are read and written here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

PARTS = ("home", "py")
# The host's own: its log is a link to another place, and its user's data sets are a memory file system on EC2.
_LEFT_OUT = ("cloud-init-output.log", "data")


class HostImages:
    """The images of one sandbox; `folder` is the sandbox's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "images"

    def take(self, image_id: str, host: Path) -> None:
        """Copy what makes `host` (its folder) an image; one taken before under this id is replaced. Raises OSError."""
        unfinished = self._folder / f"{image_id}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for part in PARTS:
            shutil.copytree(host / part, unfinished / part, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        (unfinished / "of").write_text(str(host))
        self.forget(image_id)
        unfinished.rename(self._folder / image_id)

    def has(self, image_id: str) -> bool:
        """Tell whether there is an image; the sandbox's own one is none of these."""
        return (self._folder / image_id).is_dir()

    def lay(self, image_id: str, host: Path) -> None:
        """Give a new host what the image has. Programs that pip made name their interpreter, and that has moved."""
        image = self._folder / image_id
        for part in PARTS:
            shutil.copytree(image / part, host / part, symlinks=True, dirs_exist_ok=True)
        before, after = (image / "of").read_bytes(), bytes(host)
        for program in (host / "py/bin").iterdir():
            if program.is_file() and not program.is_symlink() and before in (text := program.read_bytes()):
                program.write_bytes(text.replace(before, after))

    def forget(self, image_id: str) -> None:
        """Remove an image; hosts that were made from it have copies."""
        shutil.rmtree(self._folder / image_id, ignore_errors=True)
