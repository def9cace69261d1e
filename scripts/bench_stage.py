"""Bytes a second of staging beside the plain AWS command line and one bare GET: same objects, same endpoint, same run.

All take turns, so that a machine that others use is slow for each of them; of each kind the median counts, and the
processor's seconds of the clients stand beside it. A node is what `run.sh` starts on one: the agent's own program in a
home of its own. The objects are random bytes in a data set with a manifest: staging digests them, the others do not.
All is written to memory where there is room (what nodes without disks of their own stage to), else to the disk, which
all nodes of the sandbox then share.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.contract import NodePaths
from orchestrator.node.start import DataSource, StartConfig, node_json
from orchestrator.sandbox import control

ROOT = Path(__file__).parents[1]
BUCKET, PREFIX = "orch-bench-stage", "set"
OBJECT = 64 * 2**20
RUN = "bench-20260101-000000-abcd"
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
NAMES = ("bare GET", "aws s3 cp", "staging", "staging, nodes")


def build(bucket: Bucket, folder: Path, size: int) -> list[str]:
    """Put a data set of `size` bytes with its manifest into the bucket; return its keys."""
    files, file = [], folder / "object"
    for number in range(-(-size // OBJECT)):
        body = os.urandom(min(OBJECT, size - number * OBJECT))
        file.write_bytes(body)
        name = f"part-{number:03}.bin"
        bucket.upload_file(file, f"{PREFIX}/{name}")
        files.append({"path": name, "size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "phase": 0})
    bucket.put(f"{PREFIX}/MANIFEST.json", json.dumps({"files": files}).encode())
    file.unlink()
    return [f"{PREFIX}/{item['path']}" for item in files]


def bare_get(keys: list[str], environ: dict[str, str]) -> None:
    """Fetch the objects one after the other over one connection, and keep nothing."""
    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        region_name=environ["AWS_DEFAULT_REGION"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    urls = [urlsplit(client.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": key})) for key in keys]
    connection = http.client.HTTPConnection(urls[0].netloc)
    buffer = memoryview(bytearray(2**20))
    for url in urls:
        connection.request("GET", f"{url.path}?{url.query}")
        reply = connection.getresponse()
        if reply.status != 200:
            raise SystemExit(f"{url.path}: HTTP {reply.status}")
        while reply.readinto(buffer):
            pass


def command_line(folder: Path, environ: dict[str, str]) -> None:
    """Copy the data set with the AWS command line as it is."""
    command = ["aws", "s3", "cp", "--recursive", "--quiet", f"s3://{BUCKET}/{PREFIX}/", str(folder / "aws")]
    subprocess.run(command, env=environ, check=True)


def stage(folder: Path, environ: dict[str, str], nodes: int) -> None:
    """Stage the data set on so many nodes at once."""
    started = []
    for rank in range(nodes):
        home = folder / f"node-{rank}"
        config = StartConfig(
            run=RUN,
            generation=1,
            epoch=1,
            rank=rank,
            instance_id=f"i-{rank}",
            node_ips=tuple(f"127.16.0.{10 + node}" for node in range(nodes)),
            procs_per_node=1,
            device="cpu",
            bucket=BUCKET,
            region=environ["AWS_DEFAULT_REGION"],
            command="true",
            data=(DataSource("set", f"s3://{BUCKET}/{PREFIX}", "set"),),
        )
        file = home / NodePaths(RUN, 1).node_json
        file.parent.mkdir(parents=True)
        file.write_text(node_json(config))
        command = [sys.executable, "-m", "orchestrator.agent.stage", str(file)]
        started.append(
            subprocess.Popen(command, env=environ | {"HOME": str(home)}, cwd=ROOT, stdout=subprocess.DEVNULL)
        )
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit("staging failed; its output says why")


def timed(work: Callable[[], None], folder: Path) -> tuple[float, float]:
    """Do it in an empty folder; return its seconds, and the processor's seconds of this process and its children."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    cpu, began = _cpu(), time.monotonic()
    work()
    seconds = time.monotonic() - began
    return seconds, _cpu() - cpu


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def report(size: int, nodes: int, seen: dict[str, list[tuple[float, float]]]) -> None:
    """Print bytes a second of each, and their ratios."""
    moved = {name: size * (nodes if name == NAMES[3] else 1) for name in NAMES}
    rates = {name: [moved[name] / seconds for seconds, _ in seen[name]] for name in NAMES}
    for name in NAMES:
        label = f"staging, {nodes} nodes, all together" if name == NAMES[3] else name
        cpu = median(used for _, used in seen[name]) / moved[name] * 2**30
        low, middle, high = min(rates[name]), median(rates[name]), max(rates[name])
        print(f"{label:32} {middle / 1e6:7.0f} MB/s ({low / 1e6:.0f} to {high / 1e6:.0f})  {cpu:.2f} s of CPU a GiB")
    for over, under, what in (
        (NAMES[2], NAMES[1], "staging beside the AWS command line (aim: at least 1.5)"),
        (NAMES[2], NAMES[0], "staging beside one bare GET"),
        (NAMES[3], NAMES[2], f"{nodes} nodes together beside one (aim: not less than 1)"),
    ):
        rounds = [one / other for one, other in zip(rates[over], rates[under], strict=True)]
        print(f"{what}: {median(rounds):.2f} (rounds {min(rounds):.2f} to {max(rounds):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the data set (1024)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=4, help="that stage at once in the last measurement (4)")
    asked = parser.parse_args()
    size = asked.mib * 2**20
    # The data set, what its parts are joined from, and what the most nodes write.
    room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > (asked.nodes + 3) * size
    with tempfile.TemporaryDirectory(prefix="orch-", dir=MEMORY if room else None) as temporary:
        home, work = Path(temporary) / "o", Path(temporary) / "work"
        control.up(home)
        try:
            found = control.settings(home)
            if found is None:
                raise SystemExit("the sandbox is not up")
            session = Session(found)
            session.client("s3").create_bucket(Bucket=BUCKET)
            keys = build(Bucket(session, BUCKET), Path(temporary), size)
            environ = {**os.environ, **control.env(home)}
            kinds: tuple[Callable[[], None], ...] = (
                lambda: bare_get(keys, environ),
                lambda: command_line(work, environ),
                lambda: stage(work, environ, 1),
                lambda: stage(work, environ, asked.nodes),
            )
            seen: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
            for _ in range(asked.rounds):
                for name, kind in zip(NAMES, kinds, strict=True):
                    seen[name].append(timed(kind, work))
            report(size, asked.nodes, seen)
        finally:
            control.down(home)


if __name__ == "__main__":
    main()
