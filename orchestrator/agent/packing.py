"""What a node of `orch dataset build --nodes` runs: `python3 -m orchestrator.agent.packing SOURCE NAME -- OPTIONS`.

Rank 0 lists the source and divides it into parts; each rank packs every Nth part that is not in S3 yet, with the
trainer that lies in the current folder, and digests its share of the whole files once all are there; rank 0 then makes
what is not images. All of it lies in S3 as it is done, so a node that is lost, or a run that is resumed, costs what was
under way and no more. Nothing here decides how images are packed. May import neither numpy nor the trainer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.agent.config import DataSource, NodeConfig
from orchestrator.agent.counted import Counted, Counts
from orchestrator.agent.gathering import digest_of, gather
from orchestrator.agent.staging import patiently
from orchestrator.agent.store import Store, open_store
from orchestrator.agent.tars import TAR, outline
from orchestrator.core.contract import NodePaths
from orchestrator.core.dataset import listing_digest
from orchestrator.core.parts import PartKeys, is_wanted, share
from orchestrator.core.units import counted, format_size
from orchestrator.errors import NotFound, OrchError

PLAN = "plan.json"
PAUSE = 2.0
LANES = 2
FAILED = 1


def say(text: str) -> None:
    """Print one line."""
    print(f"orch: {text}", flush=True)  # noqa: T201 - this is the run's own output


@dataclass(frozen=True, slots=True)
class Order:
    """What is packed: everything under an s3:// URL, as data set `name`; `options` are those of `trainer parts plan`.

    `digest` is that of the source's listing, "" for any. `labels` is the key of the file that says the classes of flat
    images, "" without one; `originals` False: only the smaller copies are kept.
    """

    source: DataSource
    name: str
    digest: str
    labels: str
    originals: bool
    options: tuple[str, ...]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Order:
        """Return what the command line says."""
        parser = argparse.ArgumentParser()
        parser.add_argument("source")
        parser.add_argument("name")
        parser.add_argument("--digest", default="")
        parser.add_argument("--labels", default="")
        parser.add_argument("--copies-only", action="store_true")
        end = arguments.index("--")
        given, options = parser.parse_args(arguments[:end]), arguments[end + 1 :]
        source = DataSource.from_json({"name": given.name, "source": given.source, "mount": given.name})
        return cls(source, given.name, given.digest, given.labels, not given.copies_only, tuple(options))


class Packer:
    """One node's work. Every method may be called again after it was broken off. Raises OrchError, OSError."""

    def __init__(self, config: NodeConfig, order: Order, store: Store, source: Store, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._config, self._order, self._work = config, order, work
        self._counts = Counts(work / "counts.json")
        self._store, self._source = Counted(store, self._counts), Counted(source, self._counts)
        self._keys = PartKeys(config.run)
        self._parts: list[list[Any]] = []
        self._lock = threading.Lock()

    def plan(self) -> None:
        """Have the plan here, which rank 0 makes."""
        while (body := self._get(self._keys.plan)) is None:
            if self._config.rank == 0:
                self._make_plan()
            else:
                time.sleep(PAUSE)
        (self._work / PLAN).write_bytes(body)
        self._parts = json.loads(body)["parts"]

    def pack(self) -> None:
        """Pack this node's parts, two at a time: while one is fetched or uploaded, the CPUs have the other."""
        done = self._done()
        own = range(self._config.rank, len(self._parts), self._config.num_nodes)
        with ThreadPoolExecutor(LANES, thread_name_prefix="pack") as pool:
            parts = [pool.submit(patiently, partial(self._pack_part, n), say) for n in own if n not in done]
            try:
                for part in parts:
                    part.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def digest(self) -> None:
        """Wait for the parts of all nodes, and digest this node's share of the whole files."""
        known: set[int] = set()
        while len(done := self._done()) < len(self._parts):
            if done != known:
                say(f"{len(done)} of {counted(len(self._parts), 'part')} packed")
            known = done
            time.sleep(PAUSE)
        found = self._keys.pieces((item.key, item.size) for item in self._store.list(self._keys.packed))
        sizes = {path: sum(size for _, size in pieces) for path, pieces in found.items()}
        there = self._names(self._keys.digests)
        for path in share(sizes, self._config.rank, self._config.num_nodes):
            if path not in there:
                say(f"digesting {path}")
                digest = digest_of(self._store, found[path], self._report_digest, say)
                body = json.dumps({"path": path, "size": sizes[path], "sha256": digest})
                self._store.put(self._keys.digest(path), body.encode())
        if self._config.rank == 0:
            self._join(sizes)
        self._done()

    def _make_plan(self) -> None:
        root, labels = self._work / self._order.name, self._work / "labels"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        if self._order.labels:
            labels.write_bytes(self._store.get(self._order.labels))
        words = ["--val-labels", str(labels)] if self._order.labels else []
        listing = str(self._list(root))
        self._trainer("plan", str(root), str(self._work), "--listing", listing, *words, *self._order.options)
        shutil.rmtree(root)
        for number in range(len(json.loads((self._work / PLAN).read_text())["parts"])):
            self._store.put(self._keys.images(number), self._images(number).read_bytes())
        self._store.put(self._keys.plan, (self._work / PLAN).read_bytes())

    def _list(self, root: Path) -> Path:
        """Return a list of the source's files, `[path, bytes]` a line; of its tars make what says what they hold."""
        source, listing = self._order.source, self._work / "listing.jsonl"
        found = {item.key.removeprefix(source.prefix): item for item in self._source.list(source.prefix)}
        if self._order.digest and self._order.digest != listing_digest((n, i.size, i.etag) for n, i in found.items()):
            raise OrchError(
                f"s3://{source.bucket}/{source.prefix} was changed since the run was launched",
                "the command that launched it packs what is there now",
            )
        say(f"{counted(len(found), 'file')} at s3://{source.bucket}/{source.prefix}")
        listing.write_text("".join(json.dumps([name, item.size]) + "\n" for name, item in found.items()))
        for name, item in found.items():
            if name.endswith(TAR) and "/" not in name:
                say(f"listing {name}, {format_size(item.size)}")
                outline(self._source, item.key, item.size, root / name, say)
        return listing

    def _pack_part(self, number: int) -> None:
        self._done()
        body = self._store.get(self._keys.images(number))
        file, images = self._images(number), self._work / f"images-{number:05}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(body)
        began = time.monotonic()
        gather(self._source, self._order.source.prefix, json.loads(body), images)
        gathered = time.monotonic()
        self._trainer("pack", str(self._work), str(number), str(images))
        packed = time.monotonic()
        folder = self._work / "packed" / f"{number:05}"
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and path.stat().st_size and is_wanted(name, originals=self._order.originals):
                self._store.upload_file(path, self._keys.packed_file(number, name))
        journal = self._work / "done" / f"{number:05}.jsonl"
        self._store.put(self._keys.journal(number), journal.read_bytes())
        spent = f"{gathered - began:.1f} s to fetch, {packed - gathered:.1f} to pack"
        upload, images_in_it = time.monotonic() - packed, counted(self._parts[number][1], "image")
        say(f"part {number}: {images_in_it}, {spent}, {upload:.1f} to upload")
        shutil.rmtree(folder)
        images.unlink()

    def _join(self, sizes: dict[str, int]) -> None:
        """Write down all files of the data set, last of all, with those that are not put together of pieces."""
        for number in range(len(self._parts)):
            if not self._images(number).is_file():
                self._images(number).parent.mkdir(exist_ok=True)
                self._images(number).write_bytes(self._store.get(self._keys.images(number)))
        self._trainer("join", str(self._work))
        files = []
        folder = self._work / "joined"
        for path in sorted(file for file in folder.rglob("*") if file.is_file()):
            name = path.relative_to(folder).as_posix()
            if is_wanted(name, originals=self._order.originals):
                self._store.upload_file(path, self._keys.small_file(name))
                files.append(name)
        while sizes.keys() - self._names(self._keys.digests):
            time.sleep(PAUSE)
        digests = [json.loads(self._store.get(self._keys.digest(path))) for path in sorted(sizes)]
        self._store.put(self._keys.joined, json.dumps({"files": digests, "small": files}).encode())

    def _done(self) -> set[int]:
        """Return the parts that lie whole in S3, having brought what is noted of them, and tell how far all are."""
        names = self._names(self._keys.done)
        folder = self._work / "done"
        with self._lock:
            folder.mkdir(exist_ok=True)
            for name in names:
                if not (folder / name).is_file():
                    (folder / "draft").write_bytes(self._store.get(self._keys.done + name))
                    (folder / "draft").replace(folder / name)
        done = {int(name.partition(".")[0]) for name in names}
        images = sum(self._parts[number][1] for number in done)
        self._report(step=len(done), steps=len(self._parts), images=images, of=sum(n for _, n in self._parts))
        return done

    def _report_digest(self, size: int) -> None:
        self._report(step=len(self._parts), digested=size)

    def _report(self, **line: Any) -> None:
        with Path(os.environ["ORCH_PROGRESS_FILE"]).open("a") as file:
            file.write(json.dumps({"time": time.time(), **line, **self._counts.keep()}) + "\n")

    def _images(self, number: int) -> Path:
        return self._work / "parts" / f"{number:05}.json"

    def _get(self, key: str) -> bytes | None:
        try:
            return self._store.get(key)
        except NotFound:
            return None

    def _names(self, prefix: str) -> set[str]:
        return {item.key.removeprefix(prefix) for item in self._store.list(prefix)}

    def _trainer(self, *words: str) -> None:
        """Run the trainer, whose last words are this node's. Raises SystemExit when it fails."""
        done = subprocess.run([sys.executable, "-m", "trainer", "parts", *words], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)


def main(arguments: list[str]) -> int:
    """Do this node's work and return the exit code."""
    home = Path(os.environ["HOME"])
    paths = NodePaths(os.environ["ORCH_RUN_ID"], int(os.environ["ORCH_GENERATION"]))
    order = Order.parse(arguments)
    try:
        config = NodeConfig.load(home / paths.node_json, home)
        store = open_store(config.bucket, config.region)
        source = store if order.source.bucket == config.bucket else open_store(order.source.bucket, config.region)
        packer = Packer(config, order, store, source, home / paths.root / "packing")
        for step in (packer.plan, packer.pack, packer.digest):
            patiently(step, say)
    except OrchError as error:
        say(f"packing failed: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        return FAILED
    except OSError as error:
        say(f"packing failed: {error}")
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
