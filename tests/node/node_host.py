"""A machine for tests: a home of its own, a PATH whose dangerous programs are harmless, a tmux server of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.core.contract import NodePaths
from orchestrator.node.start import StartConfig

RUN = "demo-20260101-000000-abcd"
REPO = Path(__file__).parents[2]
# Each only notes how it was called.
SHIMS = ("shutdown", "poweroff", "mount", "sudo", "runuser", "chown", "nvidia-smi")


class Host:
    """One machine under a short temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.calls = folder / "calls"
        shims = folder / "bin"
        for path in (self.home, shims, folder / "tmux"):
            path.mkdir()
        self.shims = shims
        for name in SHIMS:
            self.shim(name, "")
        self.env = {
            "HOME": str(self.home),
            "PATH": f"{shims}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "TMUX_TMPDIR": str(folder / "tmux"),
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
        }

    def shim(self, name: str, body: str) -> None:
        """Make a program that notes its call and then does `body`."""
        path = self.shims / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{self.calls}\n{body}\n')
        path.chmod(0o755)

    def called(self) -> list[str]:
        """Return the calls of shims so far."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def run(self, script: bytes, timeout: float = 40.0) -> subprocess.CompletedProcess[str]:
        """Run a script as the scheduler does over SSH."""
        return subprocess.run(
            ["bash", "-s"],
            input=script.decode(),
            env=self.env,
            cwd=self.home,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )

    def tmux(self, *arguments: str) -> str:
        """Return what tmux prints."""
        done = subprocess.run(
            ["tmux", *arguments], env=self.env, capture_output=True, text=True, check=False, timeout=10
        )
        return done.stdout

    def boot(self) -> None:
        """Put an empty bundle where boot would have put it."""
        bundle = self.home / NodePaths(RUN, 1).bundle
        (bundle / "workdir").mkdir(parents=True)
        (bundle / "agent").symlink_to(REPO)

    def file(self, relative: str) -> Path:
        """Return a path of the node contract."""
        return self.home / relative

    def ended(self, generation: int = 1) -> str:
        """Wait for the training's end and return the exit file's content."""
        file = self.file(NodePaths(RUN, generation).exit_file)
        wait_for(file.exists)
        return file.read_text().strip()


def config(command: str, **changes: object) -> StartConfig:
    """Return the start of rank 0 of one node, whose agent begins only after the test."""
    values: dict[str, object] = {
        "run": RUN,
        "generation": 1,
        "epoch": 1,
        "rank": 0,
        "instance_id": "i-0",
        "node_ips": ("127.16.0.1",),
        "procs_per_node": 1,
        "device": "cpu",
        "bucket": "orch-1-us-east-1",
        "region": "us-east-1",
        "command": command,
        "agent_pause": 1000.0,
    }
    return StartConfig(**{**values, **changes})  # type: ignore[arg-type]


@contextmanager
def new_host() -> Iterator[Host]:
    """Give a machine and take it away with all its processes."""
    folder = Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp"))
    host = Host(folder)
    try:
        yield host
    finally:
        host.tmux("kill-server")
        _sweep(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """End every process that has the machine's home in its environment."""
    mark = f"HOME={folder}/home".encode()

    def left() -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    for _ in range(100):
        pids = left()
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
    raise AssertionError(f"processes left: {pids}")


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds; fail when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {condition}"
        time.sleep(0.02)


def with_environment(mark: str) -> list[str]:
    """Return the environ files of all processes that were started with this in their environment."""
    done = subprocess.run(
        ["bash", "-c", 'grep -lzsxF "$1" /proc/[0-9]*/environ', "-", mark], capture_output=True, text=True, check=False
    )
    return done.stdout.split()


def end(mark: str) -> None:
    """End every process that was started with this in its environment."""
    wait_for(lambda: with_environment(mark))
    for path in with_environment(mark):
        with suppress(ProcessLookupError):
            os.kill(int(path.split("/")[2]), signal.SIGKILL)
    wait_for(lambda: not with_environment(mark))


def log(host: Host) -> str:
    """Return what the first generation's training has printed so far."""
    file = host.file(NodePaths(RUN, 1).logs) / "run.log"
    return file.read_text() if file.exists() else ""
