"""What comes before the training: `python3 -m orchestrator.agent.stage NODE_JSON` brings data and checkpoint here.

`run.sh` calls it, so what it prints is in the run's log, and its exit code decides whether the training begins.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from orchestrator.agent.config import DataSource, NodeConfig
from orchestrator.agent.fetch import Item, Meter, fetch_all
from orchestrator.agent.quick import QuickStore, suits
from orchestrator.agent.restore import drop_newer, restore, restore_step
from orchestrator.agent.store import Reader, Store, open_store
from orchestrator.core.ids import Keys
from orchestrator.core.units import format_size
from orchestrator.errors import BadInput, NotFound, OrchError, Unreachable

Opener = Callable[[str, str], Store]

# For so long S3 may be away, as at the boot; after that the training fails and says so.
PATIENCE = 150.0
PAUSE = 3.0


def say(text: str) -> None:
    """Print one line."""
    print(f"orch: {text}", flush=True)  # noqa: T201 - this is the training's own output


def stage(config: NodeConfig, opened: Opener, quick: Reader | None = None) -> None:
    """Bring all data sets to the data folder and, after the first generation, the checkpoint to the checkpoint folder.

    `quick` is tried first for the checkpoint. Raises OrchError or OSError when something cannot be had whole.
    """
    stores: dict[str, Store] = {}
    items: list[Item] = []
    for source in config.data:
        if source.bucket not in stores:
            stores[source.bucket] = opened(source.bucket, config.region)
        found = list(find_items(stores[source.bucket], source, config.data_folder))
        if not found:
            raise NotFound(f"nothing at s3://{source.bucket}/{source.prefix}", f"see data.{source.name}.source")
        say(f"data {source.name}: {len(found)} objects, {format_size(sum(item.size for item in found))}")
        items += found
    if items:
        fetch_all(items, Meter(config.staging_file, sum(item.size for item in items), say), say)
        say("all data is here and checked")
    if config.generation > 1 or config.restore_step is not None:
        restored = _restore(config, opened, quick)
        if restored is None:
            say("no checkpoint can be restored: the training begins anew")
        drop_newer(config.checkpoint_folder, restored, say)


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


def find_items(store: Store, source: DataSource, folder: Path) -> Iterator[Item]:
    """Yield the objects of a data set and where they go. Raises BadInput for keys that would leave the folder."""
    target = folder / source.mount
    for found in store.list(source.prefix):
        name = found.key.removeprefix(source.prefix)
        if not name or name.endswith("/"):
            continue
        if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
            raise BadInput(f"data {source.name} holds an object that would leave its folder: {found.key!r}")
        yield Item(store, found.key, found.size, found.etag, target / name)


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
