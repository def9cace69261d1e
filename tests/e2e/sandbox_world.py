"""A sandbox of its own for a test module, driven as a user would: through the `orch` command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

ORCH = [sys.executable, "-m", "orchestrator.cli.main"]
# Runs `orch`, and kills it once the Nth change of EC2 has taken effect; without one it counts them on stdout.
KILLED = """
import os, signal, sys
from orchestrator.aws.session import Session
made, done = Session._make, []
def make(self, service, region):
    client = made(self, service, region)
    client.meta.events.register("after-call.ec2", count)
    return client
def count(model, **_):
    if not model.name.startswith("Describe"):
        done.append(model.name)
        if len(done) == int(os.environ["KILL_AFTER"]):
            print(model.name, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
Session._make = make
from orchestrator.cli.main import main
main()
"""


@dataclass
class World:
    """`$ORCH_HOME` in a short temporary folder, and the sandbox in it."""

    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp")))

    clients: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        # Without the width that pytest-xdist says: a pipe's lines are whole.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ORCH_CLOUD", "COLUMNS"))}
        return kept | {"ORCH_HOME": str(self.home), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}

    def orch(
        self, *arguments: str, check: int | None = 0, timeout: float = 240, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*ORCH, *arguments],
            env=self.environment | dict(env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if check is not None:
            assert done.returncode == check, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*ORCH, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self.orch(*arguments, "--json").stdout)

    def client(self, service: str) -> Any:
        if service not in self.clients:
            env = self.json("sandbox", "env")
            self.clients[service] = boto3.client(
                service,
                endpoint_url=env["AWS_ENDPOINT_URL"],
                region_name=env["AWS_DEFAULT_REGION"],
                aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            )
        return self.clients[service]

    def experiment(self, name: str, run: str, **keys: Any) -> str:
        """Write an experiment file whose `run` is a shell command, and return its path."""
        folder = self.home / "experiments" / name
        folder.mkdir(parents=True, exist_ok=True)
        value = {
            "name": name,
            "num_nodes": 2,
            "resources": {"any_of": [{"instance_type": "p3.16xlarge"}], "disk_size": 8},
            "device": "cpu",
            "procs_per_node": 1,
            "run": run,
            "expected_duration": "1m",
            "max_duration": "20m",
            "preflight": "off",
        } | keys
        file = folder / f"{name}.yaml"
        file.write_text(json.dumps(value))
        return str(file)

    def launch(self, name: str, run: str, *arguments: str, check: int | None = 0, **keys: Any) -> str:
        """Launch and wait for the end; return what was printed."""
        file = self.experiment(name, run, **keys)
        done = self.orch("launch", "--cloud", "sandbox", "-y", *arguments, file, check=check)
        return done.stdout + done.stderr

    def run_id(self, name: str) -> str:
        return str(next(run["run_id"] for run in self.json("status") if run["name"] == name))

    def bucket(self) -> str:
        names = [b["Name"] for b in self.client("s3").list_buckets()["Buckets"]]
        return str(next(name for name in names if name.startswith("orch-") and "datasets" not in name))

    def keys(self, prefix: str) -> list[str]:
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.bucket(), Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def body(self, key: str) -> bytes:
        return bytes(self.client("s3").get_object(Bucket=self.bucket(), Key=key)["Body"].read())

    def instances(self, run_id: str) -> list[dict[str, Any]]:
        pages = self.client("ec2").get_paginator("describe_instances")
        found = pages.paginate(Filters=[{"Name": "tag:orch:run", "Values": [run_id]}])
        return [item for page in found for group in page["Reservations"] for item in group["Instances"]]

    def close(self) -> None:
        self.orch("sandbox", "down", check=None)
        shutil.rmtree(self.home, ignore_errors=True)


@dataclass
class Elsewhere(World):
    """Another machine of the same account: an `$ORCH_HOME` that knows nothing but how to call the cloud of `world`."""

    cloud: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, world: World) -> Elsewhere:
        return cls(cloud=world.json("sandbox", "env"))

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | dict(self.cloud)


def wait_for(what: str, probe: Callable[[], Any], seconds: float = 90) -> Any:
    """Return the first true value of `probe`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def running(world: World, name: str) -> str | None:
    return next((r["run_id"] for r in world.json("status") if r["name"] == name and r["phase"] == "running"), None)


def phase(world: World, run_id: str) -> str:
    return str(next(r["phase"] for r in world.json("status") if r["run_id"] == run_id))


def scheduler(run_id: str) -> int | None:
    """Return the one process that schedules this run, None when there is none."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"schedule" in words and run_id.encode() in words:
            return int(entry.parent.name)
    return None


def kill_scheduler(run_id: str) -> None:
    """SIGKILL the one process that schedules this run."""
    pid = scheduler(run_id)
    assert pid is not None, "no scheduler process"
    os.kill(pid, signal.SIGKILL)


def killed_after(world: World, changes: int, *arguments: str) -> str:
    """Run `orch`, killed after so many changes of EC2; return the last of them, "" where there were not so many."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env=world.environment | {"KILL_AFTER": str(changes)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
        check=False,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.stdout.splitlines()[-1] if done.returncode else ""
