"""Images that cannot be decoded: counted, named, and borne up to a share. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.errors import TrainerError

SHARE = 0.001  # of the images read
FEW = 3  # different ones that are borne whatever their share, unless it is 0


class UndecodableError(Exception):
    """An image's bytes are not those of an image; the message says why."""


def borne(share: float, images: int) -> int:
    """Return how many of `images` may be undecodable: `share` of them, or a few; with a share of 0 none."""
    return max(FEW, int(share * images)) if share else 0


class Damage:
    """What one rank has met while training.

    An image met again in a later epoch counts again, since all images read do; a few different ones are a few however
    often they are met.
    """

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._read = self._met = 0
        self._names: dict[str, None] = {}
        self._told = 0

    def note(self, read: int, names: Sequence[str]) -> None:
        """Count `read` images, of which those called `names` were replaced by others.

        Raises TrainerError once more were than are `borne`.
        """
        self._read += read
        self._met += len(names)
        self._names.update(dict.fromkeys(names))
        few = FEW if self._share else 0
        if len(self._names) > few and self._met > self._share * self._read:
            first = "; ".join(list(self._names)[:FEW])
            raise TrainerError(
                f"{self._met:,} of {self._read:,} images cannot be decoded, more than {self._share:.2%}: {first}; ...",
                "copy or pack the data set again; `python -m trainer pack` says what cannot be read in the source",
            )

    def fresh(self) -> list[str]:
        """Return the names of those met for the first time since this was last asked."""
        names = list(self._names)[self._told :]
        self._told += len(names)
        return names
