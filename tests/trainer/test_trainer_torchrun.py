"""Real torchruns, one per node as in production: start, a stop by SIGTERM on one node, resume, end, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.trainer.zygote import ROOT, free_port, logs, progress
from trainer import checkpoint
from trainer.data import pack

NODES = 2
REPEATED = 20  # so that the training surely still runs when it is asked to stop


def many(stripes: Path, root: Path) -> Path:
    """The stripes, each training image counted twenty times."""
    shutil.copytree(stripes, root)
    with np.load(root / pack.TRAIN / pack.INDEX) as file:
        columns = {name: np.tile(file[name], REPEATED) for name in file.files}
    with (root / pack.TRAIN / pack.INDEX).open("wb") as index:
        np.savez(index, **columns)  # type: ignore[arg-type]
    return root


@contextmanager
def torchruns(folder: Path, *arguments: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """One torchrun for each node; whatever is left of them at the end is killed."""
    port, processes = free_port(), []
    for rank in range(NODES):
        own = folder / str(rank)
        own.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "ORCH_DEVICE": "cpu",
            "ORCH_NUM_NODES": str(NODES), "ORCH_CHECKPOINT_DIR": str(own / "checkpoints"),
            "ORCH_PROGRESS_FILE": str(own / "progress.jsonl"), "ORCH_STOP_FILE": str(own / "stop"),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "torch.distributed.run", f"--nnodes={NODES}", "--nproc-per-node=1",
            f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}", "--max-restarts=0",
            "-m", "trainer", *arguments,
        ]  # fmt: skip
        with (own / "log").open("ab") as log:
            processes.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=own, start_new_session=True)
            )
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        file = folder / "0" / "progress.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        if any((json.loads(line).get("step") or 0) >= step for line in lines):
            return
        time.sleep(0.1)
    raise AssertionError(f"step {step} was not reached\n{logs(folder)}")


def test_sigterm_to_one_node_saves_and_ends_all_and_the_next_start_goes_on(stripes: Path, tmp_path: Path) -> None:
    data = many(stripes, tmp_path / "data")
    command = ("imagenet18", "--data", str(data), "--scale", "sandbox", "--epochs", "1", "--log-every", "1")
    with torchruns(tmp_path, *command) as nodes:
        wait_for_step(tmp_path, 3)
        nodes[1].send_signal(signal.SIGTERM)
        codes = [process.wait(timeout=120) for process in nodes]
    assert 0 not in codes, logs(tmp_path)
    stopped = progress(tmp_path)[-1]
    assert stopped["event"] == "stopped", logs(tmp_path)
    assert checkpoint.steps(tmp_path / "0" / "checkpoints") == [stopped["step"]]
    assert not (tmp_path / "1" / "checkpoints").exists()

    with torchruns(tmp_path, *command) as nodes:
        codes = [process.wait(timeout=240) for process in nodes]
    assert codes == [0, 0], logs(tmp_path)
    assert progress(tmp_path, "resumed")[0]["step"] == stopped["step"]
    assert progress(tmp_path)[-1]["event"] == "finished"
