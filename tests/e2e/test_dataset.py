"""A data set of 1 GiB on the sandbox's S3: built and staged, each killed half-way, and damaged."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.e2e.sandbox_world import World
from tests.trainer.pictures import encoded
from trainer.data import pack

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(1800)]
GIB = 2**30
TRAIN, VALIDATION, CLASSES, KINDS = 1900, 120, 10, 16


def photographs(root: Path) -> Path:
    """Write 2,020 files of some 460 kB, noise that no codec makes small, and return the folder."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (KINDS, 360, 640, 3), dtype=np.uint8)
    bodies = [encoded(Image.fromarray(pixels), quality=100) for pixels in noise]
    for split, count in (("train", TRAIN), ("val", VALIDATION)):
        for number in range(count):
            place = root / split / f"c{number % CLASSES}" / f"{number:05}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(bodies[number % KINDS])
    return root


def killed_when(world: World, stage: str, *arguments: str) -> list[dict[str, Any]]:
    """Run `orch dataset`, and kill it with SIGKILL once a quarter of `stage` is done; return what it said."""
    process = world.start("dataset", *arguments, "--json")
    assert process.stdout is not None
    said: list[dict[str, Any]] = []
    for line in process.stdout:
        said.append(json.loads(line) if line.startswith("{") else {"say": line})
        done = said[-1].get("images", said[-1].get("bytes", 0))
        if said[-1].get("stage") == stage and 4 * done >= said[-1]["of"] > done:
            os.kill(process.pid, signal.SIGKILL)
            break
    else:
        raise AssertionError(f"it ended before a quarter was done of {stage}: {said}")
    process.wait()
    process.stdout.close()
    return said


def last(world: World, *arguments: str) -> dict[str, Any]:
    """Run `orch dataset` to its end, and return its last word."""
    lines = world.orch("dataset", *arguments, "--json", timeout=900).stdout.splitlines()
    value: dict[str, Any] = json.loads(lines[-1])
    return value


def packed_before(said: list[dict[str, Any]]) -> int:
    """Return how many images a build found packed already."""
    lines = [item["say"] for item in said if "are packed already, going on" in item.get("say", "")]
    return int(lines[0].split()[0].replace(",", "")) if lines else 0


def check_on_four_nodes(world: World) -> None:
    """Launch an experiment that names the data set; each node takes every digest itself."""
    files = world.json("dataset", "show", "photos")["objects"]
    sums = "\n".join(f"{file['sha256']}  {file['path']}" for file in files)
    script = f"cd $ORCH_DATA_DIR/photos && echo '{sums}' | sha256sum --check --quiet && echo all are right"
    world.launch("digests", script, num_nodes=4, data={"photos": {"source": "dataset:photos", "wait": "all"}})
    for rank in range(4):
        assert "all are right" in world.orch("logs", world.run_id("digests"), "--node", str(rank)).stdout


def test_a_gibibyte_is_built_and_staged_in_spite_of_kills_and_a_damaged_object_is_refused(world: World) -> None:
    world.orch("sandbox", "up")
    source = photographs(world.home / "photos")
    order = ("build", str(source), "photos", "--cloud", "sandbox")
    times = [time.monotonic()]
    killed_when(world, "packing", *order)
    said = killed_when(world, "uploading", *order)
    found = packed_before(said)
    assert TRAIN / 5 < found < TRAIN + VALIDATION
    assert [item["state"] for item in world.json("dataset", "list")] == ["unfinished"]
    built = last(world, *order)
    times.append(time.monotonic())
    assert built["bytes"] == built["moved_bytes"] + built["kept_bytes"] > GIB
    assert built["bytes"] / 5 < built["kept_bytes"] < built["bytes"], "only the rest was moved"
    assert world.json("gc")["orphans"] == []

    killed_when(world, "staging", "stage", "photos", str(world.home / "here"))
    staged = last(world, "stage", "photos", str(world.home / "here"))
    times.append(time.monotonic())
    assert staged["moved_bytes"] + staged["kept_bytes"] == built["bytes"]
    assert built["bytes"] / 5 < staged["kept_bytes"] < built["bytes"], "only the rest was moved"
    assert pack.is_complete(world.home / "here")
    check_on_four_nodes(world)
    times.append(time.monotonic())
    key = f"{built['url'].partition('datasets/')[1]}photos/{built['version']}/sz/160/validation/images.bin"
    world.client("s3").put_object(Bucket=world.bucket(), Key=key, Body=bytes(len(world.body(key))))
    (world.home / "here/sz/160/validation/images.bin").unlink()
    done = world.orch("dataset", "stage", "photos", str(world.home / "here"), check=1, timeout=900)
    assert "sz/160/validation/images.bin" in done.stderr
    assert not (world.home / "here/sz/160/validation/images.bin").exists()
    spent = [round(end - start, 1) for start, end in pairwise(times)]
    kept = [round(item["kept_bytes"] / GIB, 2) for item in (built, staged)]
    sys.stderr.write(f"{built['bytes'] / GIB:.2f} GiB built, staged (each with kills), on four nodes in {spent} s; ")
    sys.stderr.write(f"{found} images were packed, {kept} GiB moved before the last start of each\n")
