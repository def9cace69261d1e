"""The data sets of one start of the training: what is needed first is brought before it, the rest beside it."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from orchestrator.agent.arriving import Arriving, clear
from orchestrator.agent.config import NodeConfig
from orchestrator.agent.fetch import Corrupt, Item, Say, fetch_all, missing
from orchestrator.agent.known import Known
from orchestrator.agent.listing import find_items
from orchestrator.agent.meter import Meter
from orchestrator.agent.part import part_of
from orchestrator.agent.store import Store
from orchestrator.core.units import counted, format_size
from orchestrator.errors import BadInput, NotFound, OrchError, Unreachable

T = TypeVar("T")
Opener = Callable[[str, str], Store]

# For so long S3 may be away, as at the boot; after that staging fails and says so.
PATIENCE = 150.0
PAUSE = 3.0
KNOWN = ".staged.jsonl"


class Staging:
    """Brings the data sets of a node. Everything raises OrchError or OSError when something cannot be had whole."""

    def __init__(self, config: NodeConfig, opened: Opener, say: Say) -> None:
        """List what there is."""
        self._config, self._say = config, say
        self._folders = [config.data_folder / source.mount for source in config.staged]
        self._items: list[Item] = []
        stores = {name: opened(name, config.region) for name in {source.bucket for source in config.staged}}
        faults: list[OrchError] = []
        for source in config.staged:
            try:
                found = find_items(stores[source.bucket], source, config.data_folder)
            except (BadInput, Corrupt, NotFound) as error:  # what the others lack is told as well
                faults.append(error)
                continue
            say(f"data {source.name}: {counted(len(found), 'object')}, {format_size(sum(item.size for item in found))}")
            self._items += [replace(item, phase=0) for item in found] if source.wait_all else found
        if faults:
            raise _all_of(faults)
        self._totals: Counter[int] = Counter()
        for item in self._items:
            self._totals[item.phase] += item.size

    def bring_first(self) -> Arriving | None:
        """Bring what the training needs first; return what says what is still to come, None when all is here."""
        clear(self._folders)
        rest = self._bring(lambda item: item.phase == 0)
        if not rest:
            self._say("all data is here and checked")
            return None
        size = format_size(sum(item.size for item in rest))
        more = counted(len(rest), "file")
        self._say(f"what is needed first is here and checked; {more}, {size}, to arrive beside the training")
        paths = {folder: [item.path for item in rest if folder in item.path.parents] for folder in self._folders}
        return Arriving({folder: found for folder, found in paths.items() if found})

    def bring_rest(self, arriving: Arriving) -> None:
        """Bring all that is not here yet, and tell who waits for it how that ended."""
        try:
            patiently(lambda: self._bring(lambda _: True), self._say)
        except (OrchError, OSError) as error:
            arriving.fail(error.message if isinstance(error, OrchError) else str(error))
            raise
        arriving.done()
        self._say("all data is here and checked")

    def _bring(self, wanted: Callable[[Item], bool]) -> Sequence[Item]:
        """Bring the items that are `wanted` and return the others that are not here."""
        folder = self._config.data_folder
        folder.mkdir(parents=True, exist_ok=True)
        known = Known(folder / KNOWN)
        meter = Meter(self._config.staging_file, self._totals, self._say)
        lacking = missing(self._items, meter, known)
        meter.write()
        check_room(lacking, folder)
        try:
            fetch_all(filter(wanted, lacking), meter, self._say, known)
        finally:
            meter.write()
        return [item for item in lacking if not wanted(item)]


def _all_of(faults: Sequence[OrchError]) -> OrchError:
    """Return an error that tells several, of the kind of the first."""
    hints = dict.fromkeys(error.hint for error in faults if error.hint)
    return type(faults[0])("; ".join(error.message for error in faults), "; ".join(hints))


def check_room(items: Iterable[Item], folder: Path) -> None:
    """Raise OrchError when what is not there of `items` does not fit where `folder` lies (a disk, or memory)."""
    needed = sum(max(0, item.size - _taken(item.path) - _taken(part_of(item.path))) for item in items)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OrchError(
            f"the data needs {format_size(needed)} more, and {folder} has room for {format_size(free)}",
            "raise resources.disk_size, or take an instance type with more memory",
        )


def _taken(path: Path) -> int:
    """Return how many bytes a file takes, which is less than its length where it is not written yet."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def patiently(work: Callable[[], T], say: Say) -> T:
    """Return `work()`, tried again while S3 does not answer. Raises what it raises last."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except Unreachable as error:
            if time.monotonic() + PAUSE > deadline:
                raise
            say(f"{error.message}; trying again")
        time.sleep(PAUSE)
