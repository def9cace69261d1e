"""A sandbox of its own for a test module: instances by boto3, hosts by OpenSSH's client, processes from /proc."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from orchestrator.core.settings import Settings
from orchestrator.errors import OrchError
from orchestrator.sandbox import control, tools

try:
    tools.find(dict(os.environ))
    tools.check_user()
    UNFIT = ""
except OrchError as error:
    UNFIT = error.message
needs_hosts = [pytest.mark.sandbox, pytest.mark.skipif(bool(UNFIT), reason=UNFIT or "fit")]


@dataclass
class Node:
    """One running instance."""

    instance_id: str
    address: str


@dataclass
class World:
    """A sandbox that is up, and a key for its hosts."""

    home: Path
    settings: Settings
    key: Path = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.home / "key"
        made = self.client("ec2").create_key_pair(KeyName="test", KeyType="ed25519")
        self.key.write_text(made["KeyMaterial"])
        self.key.chmod(0o600)

    @property
    def folder(self) -> Path:
        return self.home / "sandbox"

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.settings.endpoint_url,
            region_name=self.settings.region,
            aws_access_key_id=self.settings.access_key,
            aws_secret_access_key=self.settings.secret_key,
        )

    def launch(self, count: int = 1, user_data: str = "", **request: Any) -> list[Node]:
        """Launch and wait until every host answers."""
        made = self.client("ec2").run_instances(
            ImageId=self.settings.image,
            InstanceType="p3.16xlarge",
            MinCount=count,
            MaxCount=count,
            KeyName="test",
            UserData=user_data,
            **request,
        )
        nodes = [Node(item["InstanceId"], item["PrivateIpAddress"]) for item in made["Instances"]]
        for node in nodes:
            wait_for(f"{node.instance_id} answers", partial(self.answers, node))
        return nodes

    def answers(self, node: Node) -> bool:
        return self.ssh(node, "true").returncode == 0

    def state(self, node: Node) -> tuple[str, str]:
        """Return an instance's state and the code of its reason."""
        found = self.client("ec2").describe_instances(InstanceIds=[node.instance_id])
        item = found["Reservations"][0]["Instances"][0]
        return item["State"]["Name"], item.get("StateReason", {}).get("Code", "")

    def terminate(self, node: Node) -> None:
        """Terminate, and wait until EC2 says that it is done."""
        self.client("ec2").terminate_instances(InstanceIds=[node.instance_id])
        wait_for(f"{node.instance_id} is terminated", lambda: self.state(node)[0] == "terminated")

    def ssh_command(self, node: Node, *options: str, program: str = "ssh") -> list[str]:
        port = ("-P" if program == "sftp" else "-p", str(self.settings.ssh_port))
        plain = ("-F", "none", "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no", "-o", "IdentitiesOnly=yes")
        known = ("-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20", "-i", str(self.key))
        return [program, *plain, *known, *port, *options, f"{self.settings.ssh_user}@{node.address}"]

    def ssh(self, node: Node, command: str, **kind: Any) -> subprocess.CompletedProcess[str]:
        kind = {"stdin": subprocess.DEVNULL} | kind if "input" not in kind else kind
        argv = [*self.ssh_command(node), command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **kind)

    def on(self, node: Node, command: str) -> str:
        """Return what a command on a host prints; it must succeed."""
        done = self.ssh(node, command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def host_folder(self, node: Node) -> Path:
        return Path(self.on(node, "echo $HOME").strip()).parent

    def supervisor(self, node: Node) -> int:
        """Return the process that listens for a host's connections: the one named so."""
        pids: list[int] = next(
            host["pids"] for host in control.status(self.home)["hosts"] if host["address"] == node.address
        )
        return next(pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "orch-host\n")

    def daemon(self) -> int:
        return int(control.status(self.home)["pid"])


@contextmanager
def new_world(**options: Any) -> Iterator[World]:
    home = Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp"))
    try:
        yield World(home, control.up(home, **({"pending_seconds": 0.05, "shutting_down_seconds": 0.05} | options)))
    finally:
        control.down(home)
        shutil.rmtree(home)


def sentinel() -> str:
    """Return a number of seconds to sleep that no other process on this machine sleeps for."""
    return f"{100_000 + secrets.randbelow(900_000)}.{secrets.randbelow(10**9):09d}"


def sleepers(seconds: str) -> list[int]:
    """Return the processes that sleep for a sentinel."""
    return [pid for pid, words in command_lines() if words == ["sleep", seconds]]


def command_lines() -> list[tuple[int, list[str]]]:
    """Return every process of this machine (zombies have no command line)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            found.append((int(entry.name), [word for word in words if word]))
    return found


def naming(folder: Path) -> list[tuple[int, list[str]]]:
    """Return the processes whose command line, environment, working directory or program names `folder`, less ours."""
    found = []
    kin = {os.getpid(), os.getppid()}
    for pid, words in command_lines():
        places = []
        for link in ("cwd", "exe", "root"):
            try:
                places.append(str(Path(f"/proc/{pid}/{link}").readlink()))
            except OSError:
                continue
        with suppress(OSError):
            places.append(Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace"))
        if pid not in kin and any(str(folder) in place for place in [*words, *places]):
            found.append((pid, words))
    return found


def wait_for(what: str, probe: Callable[[], Any], seconds: float = 60) -> Any:
    """Return the first true value of `probe`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def round_trip(home: Path) -> None:
    """Have a sandbox with one host, reach it in every way, and end it: for a user other than who runs the tests."""
    world = World(home, control.up(home, pending_seconds=0.05, shutting_down_seconds=0.05))
    node = world.launch(user_data="#!/bin/sh\nid -u > $HOME/booted\n")[0]
    wait_for("user-data ran", lambda: world.ssh(node, "cat booted").stdout == f"{os.getuid()}\n")
    assert world.on(node, "id -u") == f"{os.getuid()}\n"
    seconds = sentinel()
    world.on(node, f"tmux new-session -d sleep {seconds}")
    session = subprocess.Popen([*world.ssh_command(node), f"sleep {seconds}"], stdin=subprocess.DEVNULL)
    wait_for("both sleep", lambda: len(sleepers(seconds)) == 2)
    daemon, supervisor = world.daemon(), world.supervisor(node)
    os.kill(daemon, 19)
    os.kill(supervisor, 9)
    os.kill(daemon, 9)
    assert len(sleepers(seconds)) == 2
    control.down(home)
    session.wait(20)
    assert sleepers(seconds) == []
    assert [words for _, words in command_lines() if words[:1] == ["sshd:"] and node.address in shlex.join(words)] == []
