"""How long a launch takes beside a bare parallel `ssh HOST true` over the same hosts in the same run, by size."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.ids import bucket_name
from orchestrator.run.home import Home
from orchestrator.run.ledger import Ledger
from orchestrator.run.reach import ssh_command
from orchestrator.run.read import Reader
from orchestrator.run.view import RunView
from orchestrator.sandbox import control

ORCH = [sys.executable, "-m", "orchestrator.cli.main"]
PENDING_SECONDS = 1.0
SSH_TRIALS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds after the RunInstances reply, less the sandbox's pending time, by which all nodes had got there."""

    nodes: int
    bundle: float
    reached: float
    started: float
    agents: float
    bare_ssh: float


def measure(home: Home, session: Session, bucket: Bucket, nodes: int) -> Timing:
    file = home.path / f"bench{nodes}.json"
    experiment = {
        "name": f"bench{nodes}",
        "num_nodes": nodes,
        "resources": {"any_of": [{"instance_type": "p3.16xlarge"}], "disk_size": 8},
        "device": "cpu",
        "procs_per_node": 1,
        "run": "hostname; sleep 600",
        "max_duration": "20m",
        "checkpoint_grace": "1s",
        "preflight": "off",
    }
    file.write_text(json.dumps(experiment))
    environment = os.environ | {"ORCH_HOME": str(home.path)}
    launched = subprocess.run(
        [*ORCH, "launch", "--cloud", "sandbox", "--yes", "--detach", "--json", str(file)],
        env=environment, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    run_id = json.loads(launched.stdout)["run_id"]
    reader = Reader(session, bucket, run_id)
    view = reader.read()
    while len([n for n in view.facts.nodes.values() if n.beacon is not None and n.beacon.started]) < nodes:
        time.sleep(0.5)
        view = reader.read()
    agents = time.time()
    zero = replied(bucket, run_id) + PENDING_SECONDS
    stamps = file_times(view, home, session, bucket)
    bare = min(bare_ssh(view, home, session, bucket) for _ in range(SSH_TRIALS))
    subprocess.run(
        [*ORCH, "stop", run_id], env=environment, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    latest = {name: max(times[name] for times in stamps) - zero for name in stamps[0]}
    return Timing(nodes, latest["bundle"], latest["epoch"], latest["started"], agents - zero, bare)


def replied(bucket: Bucket, run_id: str) -> float:
    """Return the Unix time of the RunInstances reply."""
    ledger = Ledger(bucket, run_id, "bench")
    ledger.read()
    return float(next(e.detail["replied"] for e in ledger.entries if e.kind == "outcome" and e.action == "launch"))


def file_times(view: RunView, home: Home, session: Session, bucket: Bucket) -> list[dict[str, float]]:
    """Return for each node when its bundle was there, when the start command arrived, and when `run` began."""
    script = f"cd ~/orch/{view.spec.run_id} && stat -c %.6Y bundle epoch gen-1/started"

    def one(rank: int) -> dict[str, float]:
        argv = ssh_command(view, home, rank, [script], tty=False, session=session, bucket=bucket)
        times = subprocess.run(
            argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
        ).stdout.split()
        return dict(zip(("bundle", "epoch", "started"), map(float, times), strict=True))

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(view.spec.num_nodes)))


def bare_ssh(view: RunView, home: Home, session: Session, bucket: Bucket) -> float:
    """Return the seconds that `ssh HOST true` takes to all hosts at once."""
    commands: list[Any] = [
        ssh_command(view, home, rank, ["true"], tty=False, session=session, bucket=bucket)
        for rank in range(view.spec.num_nodes)
    ]
    started = time.monotonic()
    processes = [subprocess.Popen(argv, stdin=subprocess.DEVNULL) for argv in commands]
    if any(process.wait() for process in processes):
        sys.exit("a bare ssh failed")
    return time.monotonic() - started


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [1, 4, 16, 64]
    home = Home(Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp")))
    try:
        settings = control.up(home.path, pending_seconds=PENDING_SECONDS)
        session = Session(settings)
        bucket = Bucket(session, bucket_name(session.account(), settings.region))
        print(
            "seconds after the RunInstances reply (less pending) until all nodes: have the bundle, are reached by ssh,"
        )
        print("have `run` started, report by their agents; beside bare parallel ssh; ratio is `run` started / bare ssh")
        print(f"{'nodes':>5} {'bundle':>8} {'reached':>8} {'started':>8} {'agents':>8} {'bare ssh':>9} {'ratio':>6}")
        for nodes in sizes:
            t = measure(home, session, bucket, nodes)
            ratio = t.started / t.bare_ssh
            stages = f"{t.bundle:>8.2f} {t.reached:>8.2f} {t.started:>8.2f} {t.agents:>8.2f}"
            print(f"{nodes:>5} {stages} {t.bare_ssh:>9.2f} {ratio:>6.2f}", flush=True)
    finally:
        control.down(home.path)
        shutil.rmtree(home.path, ignore_errors=True)


if __name__ == "__main__":
    main()
