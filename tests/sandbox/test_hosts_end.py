"""How hosts end: by EC2, by their own shutdown, by SIGKILL of what holds them; nothing of theirs is ever left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import BadInput
from orchestrator.sandbox import control, reaper, supervisor
from tests.sandbox.hosts_world import (
    Node,
    World,
    command_lines,
    naming,
    needs_hosts,
    new_world,
    sentinel,
    sleepers,
    wait_for,
)

pytestmark = needs_hosts

# Ways in which a process tries to get away: tmux, a double fork, no environment and no folder.
ESCAPES = """
tmux new-session -d sleep {seconds}
(setsid sleep {seconds} </dev/null >/dev/null 2>&1 &)
(cd /; setsid env -i sleep {seconds} </dev/null >/dev/null 2>&1 &)
"""
# And one that also changes the limit by which the sandbox marks its processes.
UNMARKED = "(cd /; ulimit -x 7; setsid env -i sleep {seconds} </dev/null >/dev/null 2>&1 &)"
if os.geteuid() == 0 and shutil.which("setpriv"):
    ESCAPES += (
        "(cd /; setsid setpriv --reuid=65534 --clear-groups env -i sleep {seconds} </dev/null >/dev/null 2>&1 &)\n"
    )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


def escape(world: World, node: Node, ways: str = ESCAPES) -> str:
    """Start processes on a host that try to outlive it, and an SSH session; return what they sleep for."""
    seconds = sentinel()
    world.on(node, ways.format(seconds=seconds))
    subprocess.Popen(
        [*world.ssh_command(node), f"sleep {seconds}"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for("all sleep", lambda: len(sleepers(seconds)) == ways.count("sleep") + 1)
    return seconds


def terminated(world: World, node: Node) -> bool:
    return world.state(node)[0] == "terminated"


def sessions(node: Node, world: World) -> list[str]:
    """Return the connections to a host's sshd that are still open."""
    port = f"{world.settings.ssh_port:04X}"
    address = "".join(f"{int(part):02X}" for part in reversed(node.address.split(".")))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [fields[1] for fields in lines if fields[1] == f"{address}:{port}" and fields[3] in {"01", "0A"}]


def test_termination_takes_every_process_of_the_host_and_of_no_other(world: World) -> None:
    node, other = world.launch(2)
    mine, others = escape(world, node, ESCAPES + UNMARKED), escape(world, other)
    folder = world.host_folder(node)
    world.terminate(node)
    assert sleepers(mine) == []
    assert sessions(node, world) == []
    assert len(sleepers(others)) == ESCAPES.count("sleep") + 1
    wait_for("its folder is gone", lambda: not folder.exists())
    assert [host["instance_id"] for host in control.status(world.home)["hosts"]].count(node.instance_id) == 0
    assert not naming(folder)
    world.terminate(other)
    assert sleepers(others) == []


def test_a_host_that_is_terminated_while_it_boots_leaves_nothing(world: World) -> None:
    seconds = sentinel()
    made = world.client("ec2").run_instances(
        ImageId=world.settings.image,
        InstanceType="p3.16xlarge",
        MinCount=6,
        MaxCount=6,
        UserData=f"#!/bin/sh\nsetsid sleep {seconds} &\nsleep {seconds}\n",
    )
    nodes = [Node(item["InstanceId"], item["PrivateIpAddress"]) for item in made["Instances"]]
    wait_for("one has begun", lambda: len(sleepers(seconds)) > 0)
    for node in nodes:
        world.client("ec2").terminate_instances(InstanceIds=[node.instance_id])
    for node in nodes:
        wait_for("terminated", partial(terminated, world, node))
    assert sleepers(seconds) == []


def test_a_killed_supervisor_takes_its_host_down_and_halting_it_still_works(world: World) -> None:
    node = world.launch()[0]
    seconds = escape(world, node, ESCAPES + UNMARKED)
    os.kill(world.supervisor(node), signal.SIGKILL)
    wait_for("swept", lambda: sleepers(seconds) == [])
    assert world.state(node)[0] == "running"
    world.terminate(node)
    assert sessions(node, world) == []


def test_a_killed_spawner_is_replaced_and_costs_no_host(world: World) -> None:
    node = world.launch()[0]
    spawner = next(
        pid for pid, number in reaper.processes(world.folder).items() if number == 0 and pid != world.daemon()
    )
    os.kill(spawner, signal.SIGKILL)
    other = world.launch()[0]
    assert world.on(node, "echo alive") == "alive\n"
    seconds = escape(world, node, ESCAPES + UNMARKED)
    world.terminate(node)
    assert sleepers(seconds) == []
    assert world.on(other, "echo alive") == "alive\n"
    world.terminate(other)


def test_shutdown_now_ends_the_machine_and_ec2_says_that_the_host_did_it(world: World) -> None:
    node = world.launch(InstanceInitiatedShutdownBehavior="terminate")[0]
    seconds = escape(world, node, ESCAPES + UNMARKED)
    world.ssh(node, "sudo shutdown -P now")
    wait_for("terminated", lambda: world.state(node) == ("terminated", "Client.InstanceInitiatedShutdown"))
    assert sleepers(seconds) == []


def test_the_timer_fires_with_nothing_of_the_host_alive_and_can_be_called_off(world: World) -> None:
    node = world.launch(InstanceInitiatedShutdownBehavior="terminate")[0]
    world.on(node, "shutdown -P +3; shutdown -c; shutdown -P +1")
    folder = world.host_folder(node)
    armed = time.monotonic()
    # A minute is long for a test: the supervisor is told a second, on the way that the shim takes.
    (folder / "power").write_text("in 1\n")
    assert world.state(node)[0] == "running"
    for pid in [
        pid
        for host in control.status(world.home)["hosts"]
        for pid in host["pids"]
        if host["address"] == node.address and pid != world.supervisor(node)
    ]:
        os.kill(pid, signal.SIGKILL)
    wait_for("terminated", lambda: world.state(node) == ("terminated", "Client.InstanceInitiatedShutdown"))
    assert time.monotonic() - armed >= 1.0


def test_a_timer_that_was_called_off_does_not_fire(world: World) -> None:
    node = world.launch()[0]
    world.on(node, f"echo in 2 > {world.host_folder(node)}/power; shutdown -c")
    time.sleep(2.5)
    assert world.on(node, "echo alive") == "alive\n"
    world.terminate(node)


def test_a_killed_daemon_takes_all_hosts_with_it_and_up_begins_anew() -> None:
    with new_world() as world:
        node = world.launch()[0]
        seconds = escape(world, node, ESCAPES + UNMARKED)
        port = world.settings.ssh_port
        os.kill(world.daemon(), signal.SIGKILL)
        wait_for("all is gone", lambda: sleepers(seconds) == [] and sessions(node, world) == [])
        assert control.settings(world.home) is None
        assert control.status(world.home)["up"] is False
        again = control.up(world.home, pending_seconds=0.05, shutting_down_seconds=0.05)
        assert again.endpoint_url != world.settings.endpoint_url
        assert again.ssh_port != port
        assert control.status(world.home)["hosts"] == []


def test_down_finds_what_a_killed_daemon_and_a_killed_supervisor_left_and_nothing_else() -> None:
    with new_world() as world:
        node, other = world.launch(2)
        left, swept = escape(world, node), escape(world, other)
        home = world.host_folder(node) / "home"
        bystander = subprocess.Popen(["sleep", "1000"], cwd=home)
        editor = subprocess.Popen(["tail", "-f", str(world.folder / "daemon.log")], stdout=subprocess.DEVNULL)
        # The daemon must not sweep before it dies, so it is stopped first.
        daemon, supervisor = world.daemon(), world.supervisor(node)
        os.kill(daemon, signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
        os.kill(daemon, signal.SIGKILL)
        wait_for("the other host goes by itself", lambda: sleepers(swept) == [])
        assert len(sleepers(left)) == ESCAPES.count("sleep") + 1
        # The caller is a shell in the host's home that has the host's environment.
        script = (
            f"import pathlib; from orchestrator.sandbox import control; control.down(pathlib.Path({str(world.home)!r}))"
        )
        environment = os.environ | {
            "ORCH_SANDBOX_HOST": str(home.parent),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        shell = f"{sys.executable} -c {script!r}; echo still here"
        done = subprocess.run(
            ["bash", "-c", shell], cwd=home, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout == "still here\n", done.stderr
        assert sleepers(left) == []
        assert not world.folder.exists()
        assert [
            words for _, words in command_lines() if str(world.folder) in " ".join(words) and words[0] != "tail"
        ] == []
        for process in (bystander, editor):
            assert process.poll() is None
            process.kill()
            process.wait()


def test_a_host_cannot_end_its_own_sandbox(world: World) -> None:
    node = world.launch()[0]
    code = (
        f"from orchestrator.sandbox import reaper; from pathlib import Path; reaper.sweep(Path({str(world.folder)!r}))"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = world.ssh(node, f'PYTHONPATH="{path}" {sys.executable} -c "{code}"')
    assert BadInput.__name__ in done.stderr
    assert world.on(node, "echo alive") == "alive\n"
    world.terminate(node)


def test_a_process_whose_first_thread_has_ended_is_not_taken_for_dead() -> None:
    code = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(1000,)).start();"
        " print(flush=True); ctypes.CDLL(None).syscall(60 if __import__('os').uname().machine == 'x86_64' else 93, 0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    stat = Path(f"/proc/{process.pid}/stat")
    wait_for("the first thread has ended", lambda: stat.read_bytes().rpartition(b") ")[2].startswith(b"Z"))
    assert not supervisor.is_dead(process.pid)
    process.kill()
    wait_for("it is dead", lambda: supervisor.is_dead(process.pid))
    process.communicate()
