"""Ranks without the price of an import each: one process that has torch, and forks the ranks of every scenario.

`python zygote.py` is that process: it reads one JSON job a line from stdin and answers with the exit codes. `Zygote`
is its side in the test process. A job:
`{"ranks": [{"target": "module:function", "argv": [...], "env": {...}, "log": FILE}, ...], "seconds": N}`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Zygote:
    """Started once per test session; `close` ends it and waits for it."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def train(
        self,
        folder: Path,
        world: int,
        *arguments: str,
        env: Callable[[int], Mapping[str, str]] = lambda rank: {},
        target: str = "trainer.cli:main",
        seconds: float = 120,
    ) -> list[int]:
        """Run `python -m trainer ARGUMENTS` (or call `target`) as `world` ranks; return their exit codes.

        -9 is a rank that took too long.

        Each rank has a folder of its own below `folder`, as nodes have: checkpoints, progress.jsonl, stop, log.
        """
        port = free_port()
        ranks = []
        for rank in range(world):
            own = folder / str(rank)
            own.mkdir(parents=True, exist_ok=True)
            contract = {
                "RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1,
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo",
                "ORCH_DEVICE": "cpu", "ORCH_NUM_NODES": world, "ORCH_CHECKPOINT_DIR": own / "checkpoints",
                "ORCH_PROGRESS_FILE": own / "progress.jsonl", "ORCH_STOP_FILE": own / "stop",
                "ORCH_SAVE_FILE": own / "save",
            }  # fmt: skip
            settings = {name: str(value) for name, value in contract.items()} | dict(env(rank))
            ranks.append({"target": target, "argv": arguments, "env": settings, "log": str(own / "log")})
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"ranks": ranks, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def close(self) -> None:
        """End the process that forks."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        if self._process.stdout is not None:
            self._process.stdout.close()


def free_port() -> int:
    """Return a port nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def progress(folder: Path, event: str | None = None) -> list[dict[str, Any]]:
    """Return the lines of rank 0's progress file below `folder`, those of `event` when one is named."""
    lines = [json.loads(line) for line in (folder / "0" / "progress.jsonl").read_text().splitlines()]
    return [line for line in lines if event is None or line.get("event") == event]


def logs(folder: Path) -> str:
    """Return what all ranks printed, for the message of a failed assertion."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("*/log")))


def _rank(rank: Mapping[str, Any]) -> int:
    """Be one rank; in the forked child."""
    module, name = rank["target"].split(":")
    main = getattr(import_module(module), name)
    log = os.open(rank["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(rank["env"])
    try:
        code: int = main(rank["argv"])
        return code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _run(job: Mapping[str, Any]) -> list[int]:
    pids = []
    for rank in job["ranks"]:
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = _rank(rank)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        pids.append(pid)
    codes: dict[int, int] = {}
    ends = time.monotonic() + float(job["seconds"])
    while len(codes) < len(pids):
        for pid in (pid for pid in pids if pid not in codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > ends:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


def _serve() -> None:
    import torch
    import torch._dynamo  # what the first optimizer and DDP would import in every rank

    import trainer.run

    assert trainer.run
    torch.set_num_threads(1)
    for line in sys.stdin:
        answer = json.dumps(_run(json.loads(line)))
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
