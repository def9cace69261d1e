"""What is to be built: a source, a name, and the options of the trainer's `pack`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import BadInput

LABELS, PROCESSES, MAX_CORRUPT = "--val-labels", "--processes", "--max-corrupt"
# Options of the trainer's that may change between two starts of one packing.
FREE = frozenset({PROCESSES, MAX_CORRUPT})
# What the trainer takes where nothing is said: to say it is no other order.
DEFAULTS = {"--sizes": "160,352", "--quality": "75", MAX_CORRUPT: "0.001"}


# A bucket, and a prefix or all of it.
_REMOTE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be built: `source` a path or s3:// URL; `arguments` are options of the trainer's `pack`, in pairs.

    `as_is`: upload the files as they are; `originals` False: of a packed set only the smaller copies. `home` is where
    the work folder is made.
    """

    name: str
    source: str
    as_is: bool
    originals: bool
    arguments: tuple[str, ...]
    home: Path

    @property
    def work(self) -> Path:
        """The work folder: another one for another source or other options."""
        fixed = (word for pair in self.pairs.items() if pair[0] not in FREE for word in pair)
        what = "\0".join((self.source_text, str(self.as_is), *fixed))
        return self.home / f"{self.name}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"

    @property
    def pairs(self) -> dict[str, str]:
        """The options of `arguments` and what each is set to."""
        return dict(zip(self.arguments[::2], self.arguments[1::2], strict=True))

    @property
    def source_text(self) -> str:
        """The source as it means the same from every folder."""
        return self.source if self.is_remote else str(Path(self.source).expanduser().absolute())

    @property
    def is_remote(self) -> bool:
        """Whether the source lies in S3."""
        return self.source.startswith("s3://")

    @property
    def source_faults(self) -> list[BadInput]:
        """What is wrong with the form of a source in S3, nothing of any other."""
        if not self.is_remote or _REMOTE.fullmatch(self.source):
            return []
        return [BadInput(f"{self.source} is no s3://BUCKET/PREFIX", "name a bucket, and a prefix in it")]
