"""Data sets on real hosts: whole on each, gone on with after a kill, refused when damaged, and trained on meanwhile."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.agent.fetch import CONNECTIONS
from orchestrator.agent.part import NOTED
from orchestrator.aws.s3 import MIB
from orchestrator.node.start import DataSource, StartConfig, node_json
from tests.e2e.sandbox_world import World, phase, wait_for
from tests.trainer.two_sizes import FIRST
from trainer.data import pack

ROOT = Path(__file__).parents[2]
SETS = "sets-of-tests"
NODES = 4
PARTS, PART = 16, 64 * MIB
pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(1200)]


def put_manifest(s3: Any, prefix: str, files: Mapping[str, tuple[int, str]], phases: Mapping[str, int]) -> None:
    rows = [
        {"path": name, "size": size, "sha256": sha256, "phase": phases.get(name, 0)}
        for name, (size, sha256) in files.items()
    ]
    s3.put_object(Bucket=SETS, Key=f"{prefix}/MANIFEST.json", Body=json.dumps({"files": rows}).encode())


@pytest.fixture(scope="module")
def s3(world: World) -> Any:
    """A client of the sandbox's S3, in which there is a bucket for data sets."""
    world.orch("sandbox", "up")
    client = world.client("s3")
    client.create_bucket(Bucket=SETS)
    return client


@pytest.fixture(scope="module")
def large(s3: Any) -> dict[str, tuple[int, str]]:
    """A data set of a GiB in S3, with its manifest: size and sha256 of each file."""
    files = {}
    for number in range(PARTS):
        body = os.urandom(PART)
        s3.upload_fileobj(io.BytesIO(body), SETS, f"large/part-{number:02}")
        files[f"part-{number:02}"] = (PART, hashlib.sha256(body).hexdigest())
    put_manifest(s3, "large", files, {})
    return files


def logs(world: World, run_id: str) -> str:
    return world.orch("logs", run_id, check=None).stdout


def stagers(run_id: str) -> list[int]:
    """Return the processes that stage for this run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if b"orchestrator.agent.stage" in words and any(run_id.encode() in word for word in words):
                found.append(int(entry.parent.name))
    return found


def test_a_gib_is_whole_on_each_of_four_nodes(world: World, large: dict[str, tuple[int, str]]) -> None:
    out = world.launch(
        "whole",
        'cd "$ORCH_DATA_DIR/large" && sha256sum part-* && echo "summed up"',
        num_nodes=NODES,
        data={"large": {"source": f"s3://{SETS}/large"}},
    )
    assert "finished" in out, out
    wanted = {f"{sha256}  {name}" for name, (_, sha256) in large.items()}
    run_id = world.run_id("whole")
    for rank in range(NODES):
        said = world.orch("logs", run_id, "--node", str(rank)).stdout
        assert all(line in said for line in wanted), f"rank {rank}: {said}"


def test_a_staging_that_is_killed_and_begun_again_moves_only_the_rest(
    world: World, large: dict[str, tuple[int, str]], tmp_path: Path
) -> None:
    """The program that `run.sh` starts, killed half-way; what it then fetches is what its meter says came from S3."""
    home = tmp_path / "home"
    folder = home / "orch" / "x-20260101-000000-abcd" / "gen-1"
    folder.mkdir(parents=True)
    config = StartConfig(
        run="x-20260101-000000-abcd",
        generation=1,
        epoch=1,
        rank=0,
        instance_id="i-0",
        node_ips=("127.16.0.10",),
        procs_per_node=1,
        device="cpu",
        bucket=SETS,
        region="us-east-1",
        command="true",
        data=(DataSource("large", f"s3://{SETS}/large", "large"),),
    )
    (folder / "node.json").write_text(node_json(config))
    environment = world.environment | world.json("sandbox", "env") | {"HOME": str(home)}
    command = [sys.executable, "-m", "orchestrator.agent.stage", str(folder / "node.json")]

    def come() -> int:
        """Return the bytes that lie in files here, whole or not."""
        count = 0
        for path in (home / "data/large").glob("*"):
            with suppress(FileNotFoundError):
                count += path.stat().st_blocks * 512
        return count

    staging = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    while come() < PARTS * PART // 4:
        assert staging.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    staging.send_signal(signal.SIGKILL)
    staging.communicate()
    kept = come()
    assert kept < PARTS * PART, "it was killed half-way"
    again = subprocess.run([*command], env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    told = json.loads((folder / "staging.json").read_text())
    assert told["came"] <= PARTS * PART - kept + CONNECTIONS * (NOTED + MIB), (
        "what was noted down was not fetched again"
    )
    assert 0 < told["came"] < PARTS * PART
    for name, (_, sha256) in large.items():
        assert hashlib.sha256((home / "data/large" / name).read_bytes()).hexdigest() == sha256
    shutil.rmtree(home)


def test_a_damaged_object_is_named_and_refused(world: World, s3: Any) -> None:
    body = b"what should be there"
    put_manifest(s3, "damaged", {"good": (len(body), hashlib.sha256(body).hexdigest())}, {})
    s3.put_object(Bucket=SETS, Key="damaged/good", Body=body[::-1])
    world.launch("damaged", "true", num_nodes=1, data={"d": {"source": f"s3://{SETS}/damaged"}}, check=None)
    run_id = world.run_id("damaged")
    assert phase(world, run_id) == "failed"
    said = logs(world, run_id)
    assert "staging failed: damaged/good is damaged: its sha256 is" in said, said
    assert said.count("fetching it again") == 1


@pytest.fixture(scope="module")
def two_sizes(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A packed data set in S3 whose larger images are of the second phase; return its address."""
    root = tmp_path_factory.mktemp("two")
    rng = np.random.default_rng(0)
    for folder, side in ((FIRST, 20), ("", 40)):
        for split, count in ((pack.TRAIN, 480), (pack.VALIDATION, 96)):
            with pack.Writer(root / folder / split) as writer:
                for index in range(count):
                    pixels = rng.integers(0, 60, (side, side), dtype=np.uint8)
                    band = side // 10
                    pixels[index % 10 * band : (index % 10 + 1) * band] += 190
                    body = io.BytesIO()
                    Image.fromarray(pixels).save(body, "PNG")
                    writer.add(body.getvalue(), index % 10, side, side)
    (root / pack.DATASET).write_text(json.dumps({"name": "two", "classes": 10}))
    files, phases = {}, {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, content = path.relative_to(root).as_posix(), path.read_bytes()
        s3.put_object(Bucket=SETS, Key=f"two/{name}", Body=content)
        files[name] = (len(content), hashlib.sha256(content).hexdigest())
        phases[name] = int(not name.startswith("sz/") and name != pack.DATASET)
    put_manifest(s3, "two", files, phases)
    return f"s3://{SETS}/two"


def train(world: World, name: str, source: str, wait: str) -> str:
    """Launch a training on two nodes and return its experiment file."""
    file = world.experiment(
        name,
        'torchrun $ORCH_TORCHRUN_ARGS two_sizes.py imagenet18 --scale sandbox --data "$ORCH_DATA_DIR/two"'
        " --log-every 1 --epochs 3",
        num_nodes=2,
        data={"two": {"source": source, "wait": wait}},
        envs={"OMP_NUM_THREADS": "1"},
        workdir=".",
    )
    folder = Path(file).parent
    shutil.copy(ROOT / "tests" / "trainer" / "two_sizes.py", folder)
    shutil.copytree(ROOT / "trainer", folder / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    return file


def lines(world: World, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in world.body(f"runs/{run_id}/metrics.jsonl").splitlines()]


def losses(world: World, run_id: str) -> list[float]:
    return [line["loss"] for line in lines(world, run_id) if "event" not in line]


def test_training_begins_while_the_second_size_arrives_and_sees_the_same_images(world: World, two_sizes: str) -> None:
    world.orch("launch", "--cloud", "sandbox", "-y", train(world, "all", two_sizes, "all"))
    # Nothing of the second size comes before the training has reached it.
    for split in pack.SPLITS:
        world.orch("sandbox", "fault", f"GetObject/{SETS}/two/{split}/", "SlowDown", "--count", "1000000")
    world.orch("launch", "--cloud", "sandbox", "-y", "--detach", train(world, "early", two_sizes, "first"))
    run_id = world.run_id("early")
    wait_for(
        "it trains on the first size and waits for the second",
        lambda: "waiting for" in logs(world, run_id),
        180,
    )
    assert phase(world, run_id) == "running"
    beacons = [
        json.loads(world.body(key)) for key in world.keys(f"runs/{run_id}/nodes/") if key.endswith("beacon.json")
    ]
    assert [(b["stage"], b["phases"][0][0] == b["phases"][0][1], b["phases"][1][0]) for b in beacons] == [
        ("running", True, 0)
    ] * 2
    world.orch("sandbox", "fault", "GetObject", "SlowDown", "--count", "0")
    wait_for("it ends", lambda: phase(world, run_id) == "finished", 180)
    told = lines(world, run_id)
    began = next(line["time"] for line in told if "event" not in line)
    arrived = next(line["time"] for line in told if line.get("event") == "arrived")
    assert began < arrived, "the first step was made before the second size was there"
    assert losses(world, run_id) == losses(world, world.run_id("all")) != []
    assert stagers(run_id) == []
