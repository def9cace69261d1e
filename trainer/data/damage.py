"""Images that cannot be decoded: counted, named, and borne up to a share. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.errors import TrainerError

SHARE = 0.001  # of the images of a split
FEW = 3  # different ones that are borne whatever their share, unless it is 0


class UndecodableError(Exception):
    """An image's bytes are not those of an image; the message says why."""


def borne(share: float, images: int) -> int:
    """Return how many of `images` may be undecodable: `share` of them, or a few; with a share of 0 none."""
    return max(FEW, int(share * images)) if share else 0


class Damage:
    """What one rank has met while training; an image met again, in another epoch or another size, counts once."""

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._names: dict[str, None] = {}
        self._told = 0

    def note(self, names: Sequence[str], images: int) -> None:
        """Note images called `names`, of a split of `images`, that could not be decoded.

        Raises TrainerError once more were met than of these are `borne`.
        """
        self._names.update(dict.fromkeys(names))
        if len(self._names) > borne(self._share, images):
            first, count = "; ".join(list(self._names)[:FEW]), len(self._names)
            raise TrainerError(
                f"{count:,} of {images:,} images cannot be decoded, more than {self._share:.2%}: {first}; ...",
                "copy or pack the data set again; `python -m trainer pack` says what cannot be read in the source",
            )

    def fresh(self) -> list[str]:
        """Return the names of those met for the first time since this was last asked."""
        names = list(self._names)[self._told :]
        self._told += len(names)
        return names
