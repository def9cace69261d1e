"""What comes before the training: `python3 -m orchestrator.agent.stage NODE_JSON` brings data and checkpoint here.

`run.sh` calls it, so what it prints is in the run's log, and its exit code decides whether the training begins.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator.agent.config import NodeConfig
from orchestrator.agent.fetch import Item, fetch_all
from orchestrator.agent.known import Known
from orchestrator.agent.listing import find_items
from orchestrator.agent.meter import Meter
from orchestrator.agent.part import part_of
from orchestrator.agent.quick import QuickStore, suits
from orchestrator.agent.restore import drop_newer, restore, restore_step
from orchestrator.agent.store import Reader, Store, open_store
from orchestrator.core.ids import Keys
from orchestrator.core.units import format_size
from orchestrator.errors import OrchError, Unreachable

Opener = Callable[[str, str], Store]

# For so long S3 may be away, as at the boot; after that the training fails and says so.
PATIENCE = 150.0
PAUSE = 3.0
KNOWN = ".staged.jsonl"


def say(text: str) -> None:
    """Print one line."""
    print(f"orch: {text}", flush=True)  # noqa: T201 - this is the training's own output


def stage(config: NodeConfig, opened: Opener, quick: Reader | None = None) -> None:
    """Bring all data sets to the data folder and, after the first generation, the checkpoint to the checkpoint folder.

    `quick` is tried first for the checkpoint. Raises OrchError or OSError when something cannot be had whole.
    """
    items = _find(config, opened)
    if items:
        _fetch(items, config)
    if config.generation > 1 or config.restore_step is not None:
        restored = _restore(config, opened, quick)
        if restored is None:
            say("no checkpoint can be restored: the training begins anew")
        drop_newer(config.checkpoint_folder, restored, say)


def _find(config: NodeConfig, opened: Opener) -> list[Item]:
    """Return the objects of all data sets."""
    stores: dict[str, Store] = {}
    items: list[Item] = []
    for source in config.data:
        if source.bucket not in stores:
            stores[source.bucket] = opened(source.bucket, config.region)
        found = find_items(stores[source.bucket], source, config.data_folder)
        say(f"data {source.name}: {len(found)} objects, {format_size(sum(item.size for item in found))}")
        items += found
    return items


def _fetch(items: Sequence[Item], config: NodeConfig) -> None:
    totals: Counter[int] = Counter()
    for item in items:
        totals[item.phase] += item.size
    config.data_folder.mkdir(parents=True, exist_ok=True)
    check_room(items, config.data_folder)
    meter = Meter(config.staging_file, totals, say)
    try:
        fetch_all(items, meter, say, Known(config.data_folder / KNOWN))
    finally:
        meter.close()
    say(f"all data is here and checked, {format_size(meter.rate)}/s")


def check_room(items: Iterable[Item], folder: Path) -> None:
    """Raise OrchError when what is not there yet does not fit where `folder` lies (a disk, or memory)."""
    missing = sum(max(0, item.size - _taken(item.path) - _taken(part_of(item.path))) for item in items)
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise OrchError(
            f"the data needs {format_size(missing)} more, and {folder} has room for {format_size(free)}",
            "raise resources.disk_size, or take an instance type with more memory",
        )


def _taken(path: Path) -> int:
    """Return how many bytes a file takes, which is less than its length where it is not written yet."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _restore(config: NodeConfig, opened: Opener, quick: Reader | None) -> int | None:
    """Return the step of the checkpoint that is here now, None without one."""
    step, keys, folder = config.restore_step, Keys(config.run), config.checkpoint_folder
    alone = config.num_nodes == 1
    if step is None:
        return None
    if quick is not None:
        with suppress(OrchError, OSError):
            if restore_step(quick, keys, folder, step, suits, alone=alone) is None:
                say(f"checkpoint {step} is restored")
                return step
    return restore(opened(config.bucket, config.region), keys, folder, step, say, alone=alone)


def stage_patiently(config: NodeConfig, opened: Opener, quick: Reader | None = None) -> None:
    """Stage, and again while S3 does not answer; what has arrived is not fetched again. Raises as `stage` does."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return stage(config, opened, quick)
        except Unreachable as error:
            if time.monotonic() + PAUSE > deadline:
                raise
            say(f"{error.message}; trying again")
        time.sleep(PAUSE)


def main(arguments: list[str]) -> int:
    """Stage for the `node.json` named and return the exit code."""
    config = NodeConfig.load(Path(arguments[0]), Path(os.environ["HOME"]))
    try:
        stage_patiently(config, open_store, QuickStore(config.run, config.bucket, config.region))
    except OrchError as error:
        say(f"staging failed: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        return 1
    except OSError as error:
        say(f"staging failed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
