"""Launch to bill of the 16-node imagenet18 run in the sandbox, beside a bare loop of as many torchrun, same steps.

With a number of times: only launch to first step, so often, the preflight left out and beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.ids import bucket_name
from orchestrator.run.read import Reader
from orchestrator.sandbox import control

ORCH = [sys.executable, "-m", "orchestrator.cli.main"]


def bare(nodes: int, data: Path) -> float:
    """Return the seconds of `nodes` torchrun on this machine: no orch, no S3, no ssh."""
    work = Path(tempfile.mkdtemp(prefix="orch-bare-"))
    torchrun = Path(sys.executable).with_name("torchrun")
    started = time.monotonic()
    processes = []
    for rank in range(nodes):
        folder = work / str(rank)
        (folder / "checkpoints").mkdir(parents=True)
        environment = os.environ | {
            "ORCH_CHECKPOINT_DIR": str(folder / "checkpoints"),
            "ORCH_PROGRESS_FILE": str(folder / "progress.jsonl"),
            "ORCH_STOP_FILE": str(folder / "stop"),
            "ORCH_NODE_RANK": str(rank),
            "ORCH_NUM_NODES": str(nodes),
            "ORCH_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        command = [
            str(torchrun), f"--nnodes={nodes}", "--nproc-per-node=1", f"--node-rank={rank}",
            "--master-addr=127.0.0.1", "--master-port=29411", "--max-restarts=0",
            "-m", "trainer", "imagenet18", "--data", str(data), "--scale", "sandbox",
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    codes = [process.wait(timeout=900) for process in processes]
    seconds = time.monotonic() - started
    if any(codes):
        sys.exit(f"a bare torchrun failed: {codes}; see {work}")
    shutil.rmtree(work)
    return seconds


def first_step(home: Path, nodes: int, options: Sequence[str]) -> tuple[float, float]:
    """Return the seconds from the launch to the first step, and those of them that the gang's preflight took.

    `options` are more of `orch launch`.
    """
    environment = os.environ | {"ORCH_HOME": str(home)}
    where = ["--cloud", "sandbox", "--nodes", str(nodes)]
    command = [*ORCH, "launch", *where, "--yes", "--detach", "--json", *options, "imagenet18"]
    done = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    run_id = json.loads(done.stdout)["run_id"]
    settings = control.up(home)
    session = Session(settings)
    reader = Reader(session, Bucket(session, bucket_name(session.account(), settings.region)), run_id, history=True)
    while True:
        view = reader.read()
        steps = [line["time"] for line in view.history if line.get("event") != "start" and "step" in line]
        if steps or view.ended:
            break
        time.sleep(1)
    # Whoever came last waited for nobody.
    starts: Any = getattr(view, "starts", ())
    preflight = min((start.seconds.get("preflight", 0.0) for start in starts), default=0.0)
    subprocess.run([*ORCH, "stop", run_id], env=environment, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return steps[0] - view.spec.created.timestamp(), preflight


def compare(nodes: int, times: int, options: Sequence[str]) -> None:
    home = Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp"))
    environment = os.environ | {"ORCH_HOME": str(home)}
    try:
        subprocess.run([*ORCH, "sandbox", "up"], env=environment, check=True)
        for _ in range(times):
            seconds, preflight = first_step(home, nodes, options)
            print(
                f"{nodes} nodes, launch to first step: {seconds:.1f} s, of which preflight {preflight:.1f} s; "
                f"without it {seconds - preflight:.1f} s",
                flush=True,
            )
    finally:
        subprocess.run([*ORCH, "sandbox", "down"], env=environment, check=False)
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    nodes = int(sys.argv[1])
    if len(sys.argv) > 2:
        compare(nodes, int(sys.argv[2]), sys.argv[3:])
        return
    home = Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp"))
    environment = os.environ | {"ORCH_HOME": str(home)}
    try:
        data = home / "datasets" / "digits"
        data.parent.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "trainer", "digits", str(data)], check=True)
        subprocess.run([*ORCH, "sandbox", "up"], env=environment, check=True)
        floor = bare(nodes, data)
        started = time.monotonic()
        command = [*ORCH, "launch", "--cloud", "sandbox", "--nodes", str(nodes), "--yes", "imagenet18"]
        subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL)
        ours = time.monotonic() - started
    finally:
        subprocess.run([*ORCH, "sandbox", "down"], env=environment, check=False)
        shutil.rmtree(home, ignore_errors=True)
    print(
        f"{nodes} nodes, launch to bill: {ours:.1f} s; bare loop of {nodes} torchrun: {floor:.1f} s; "
        f"ratio {ours / floor:.2f}"
    )


if __name__ == "__main__":
    main()
