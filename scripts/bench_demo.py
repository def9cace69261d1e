"""Launch to bill of the 16-node imagenet18 run in the sandbox, beside a bare loop of as many torchrun, same steps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def main() -> None:
    nodes = int(sys.argv[1])
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
