"""What can be done to a host that EC2 does not see: cut off, stopped, killed in part, rebooted; and how it heals."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import pytest

from orchestrator.errors import BadInput, NotFound, OrchError
from orchestrator.node.bootstrap import BootConfig, user_data
from orchestrator.sandbox import control
from tests.sandbox.hosts_world import Node, World, naming, needs_hosts, new_world, sentinel, sleepers, wait_for

pytestmark = needs_hosts

# Calls AWS with keys of its own, once: what it is answered, or that nothing came back in time.
CALL = """
import sys, boto3
from botocore.config import Config
ec2 = boto3.client("ec2", config=Config(read_timeout=float(sys.argv[1]), retries={"total_max_attempts": 1}))
try:
    ec2.create_key_pair(KeyName=sys.argv[2])
except Exception as error:
    print(type(error).__name__)
else:
    print("answered")
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


@pytest.fixture(scope="module")
def pair(world: World) -> list[Node]:
    """Two hosts that can call AWS and know the script that does."""
    keys = " ".join(f"export {name}={value};" for name, value in control.env(world.home).items() if "KEY" in name)
    nodes = world.launch(2, InstanceMarketOptions={"MarketType": "spot"})
    for node in nodes:
        done = world.ssh(node, f"cat > call.py; echo '{keys}' > keys", input=CALL)
        assert done.returncode == 0, done.stderr
    return nodes


@pytest.fixture
def node(world: World, pair: list[Node]) -> Iterator[Node]:
    """One of them; whatever a test leaves in force is undone, and its tmux server (with its environment) ended."""
    yield pair[0]
    for kind in in_force(world, pair[0]):
        control.heal(world.home, pair[0].instance_id, kind)
    wait_for("it answers again", lambda: world.answers(pair[0]))
    world.ssh(pair[0], "tmux kill-server")


def in_force(world: World, node: Node) -> list[str]:
    instances = control.status(world.home)["instances"]
    return next(item["disturbances"] for item in instances if item["instance_id"] == node.instance_id)


def greets(world: World, node: Node) -> str:
    """Return what a connection to a host's SSH port meets: its greeting, `silence` or `refused`."""
    try:
        with socket.create_connection((node.address, world.settings.ssh_port), timeout=1) as link:
            return link.recv(4).decode()
    except TimeoutError:
        return "silence"
    except ConnectionRefusedError:
        return "refused"


def home_of(world: World, node: Node) -> Path:
    """Return a host's home without asking the host."""
    plans = (world.folder / "h").glob("*/host.json")
    return next(plan.parent / "home" for plan in plans if node.instance_id in plan.read_text())


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_host_that_is_cut_off_neither_answers_nor_calls_and_then_heals(world: World, pair: list[Node]) -> None:
    node, other = pair
    home = home_of(world, node)
    wait = "until [ -e go ]; do sleep 0.1; done"
    session = subprocess.Popen(
        [*world.ssh_command(node), f"echo ready; {wait}; touch gone; echo through"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert session.stdout is not None
    assert session.stdout.readline() == "ready\n"
    world.on(node, f"({wait}; . ./keys; python3 call.py 2 never; touch tried) >said 2>&1 </dev/null &")
    control.disturb(world.home, node.instance_id, "partition")
    assert in_force(world, node) == ["partition"]
    assert greets(world, node) == "silence"
    assert world.answers(other)
    (home / "go").touch()
    wait_for("its call ended", (home / "tried").exists)
    assert (home / "said").read_text() == "ReadTimeoutError\n"
    assert (home / "gone").exists(), "its processes go on"
    control.heal(world.home, node.instance_id, "partition")
    assert world.on(node, "echo in") == "in\n"
    assert session.stdout.readline() == "through\n", "a session that hung is there again"
    names = {item["KeyName"] for item in world.client("ec2").describe_key_pairs()["KeyPairs"]}
    assert "never" not in names, "what was sent while it was cut off takes no effect"
    assert world.on(node, ". ./keys; python3 call.py 20 after") == "answered\n"
    assert session.wait(20) == 0
    session.stdout.close()


def test_a_partition_heals_by_itself(world: World, node: Node) -> None:
    control.disturb(world.home, node.instance_id, "partition", 1.0)
    assert in_force(world, node) == ["partition"]
    assert world.on(node, "echo in") == "in\n", "a connection that waited in the queue is served"
    assert in_force(world, node) == []


def test_the_training_hangs_alone_and_goes_on(world: World, node: Node) -> None:
    seconds = sentinel()
    world.on(node, f"(ORCH_STOP_FILE=/x setsid bash -c 'sleep {seconds}; :' </dev/null >/dev/null 2>&1 &)")
    wait_for("it runs", lambda: len(sleepers(seconds)) == 1)
    training = sleepers(seconds)[0]
    control.disturb(world.home, node.instance_id, "hang")
    wait_for("stopped", lambda: state(training) == "T")
    assert world.answers(node)
    control.disturb(world.home, node.instance_id, "freeze")
    control.heal(world.home, node.instance_id, "freeze")
    assert world.answers(node)
    assert state(training) == "T", "it was stopped twice, and is healed of one"
    control.heal(world.home, node.instance_id, "hang")
    wait_for("going on", lambda: state(training) == "S")
    control.disturb(world.home, node.instance_id, "crash")
    wait_for("killed", lambda: sleepers(seconds) == [])
    assert in_force(world, node) == []


def test_a_machine_that_hangs_hangs_whole_and_can_still_be_taken(world: World) -> None:
    node = world.launch()[0]
    seconds = sentinel()
    world.on(node, f"tmux new-session -d sleep {seconds}")
    wait_for("it sleeps", lambda: len(sleepers(seconds)) == 1)
    control.disturb(world.home, node.instance_id, "freeze")
    control.disturb(world.home, node.instance_id, "partition")
    wait_for("stopped", lambda: [state(pid) for pid in sleepers(seconds)] == ["T"])
    assert greets(world, node) == "silence"
    control.heal(world.home, node.instance_id, "partition")
    assert greets(world, node) == "silence", "it still hangs"
    assert [state(pid) for pid in sleepers(seconds)] == ["T"]
    assert world.state(node)[0] == "running"
    folder = world.folder / "h"
    world.terminate(node)
    assert sleepers(seconds) == []
    assert not [words for _, words in naming(folder) if node.instance_id in " ".join(words)]


def test_without_sshd_connections_are_refused_and_the_rest_goes_on(world: World, node: Node) -> None:
    seconds = sentinel()
    world.on(node, f"tmux new-session -d sleep {seconds}")
    wait_for("it sleeps", lambda: len(sleepers(seconds)) == 1)
    control.disturb(world.home, node.instance_id, "stop-sshd")
    wait_for("refused", lambda: greets(world, node) == "refused")
    assert len(sleepers(seconds)) == 1
    control.heal(world.home, node.instance_id, "stop-sshd")
    wait_for("back", lambda: world.answers(node))
    control.disturb(world.home, node.instance_id, "kill-tmux")
    wait_for("no server", lambda: world.ssh(node, "tmux ls").returncode != 0)


def test_a_reboot_ends_every_process_and_timer_and_keeps_home_and_address(world: World) -> None:
    node = world.launch(user_data="#!/bin/sh\necho once >> $HOME/booted\n")[0]
    seconds = sentinel()
    world.on(node, f"tmux new-session -d sleep {seconds}; shutdown +1; echo kept > kept")
    wait_for("it sleeps", lambda: len(sleepers(seconds)) == 1)
    control.disturb(world.home, node.instance_id, "reboot")
    wait_for("all ended", lambda: sleepers(seconds) == [])
    wait_for("it is back", lambda: world.answers(node))
    assert world.on(node, "cat kept booted; tmux ls 2>/dev/null | wc -l") == "kept\nonce\n0\n"
    assert world.state(node)[0] == "running"
    world.ssh(node, "shutdown now")
    wait_for("it can still shut itself down", lambda: world.state(node)[0] in {"stopped", "terminated"})


def test_of_a_multipart_the_part_for_every_boot_runs_before_the_other_and_at_each_reboot(world: World) -> None:
    parts = MIMEMultipart()
    parts.attach(MIMEText("#!/bin/sh\necho first >> $HOME/booted\n", "x-shellscript"))
    parts.attach(MIMEText("#!/bin/sh\necho every >> $HOME/booted\n", "x-shellscript-per-boot"))
    node = world.launch(user_data=parts.as_string())[0]
    for booted in ("every\nfirst\n", "every\nfirst\nevery\n", "every\nfirst\nevery\nevery\n"):
        wait_for("the scripts ran", lambda: world.ssh(node, "cat booted").stdout == booted)  # noqa: B023
        control.disturb(world.home, node.instance_id, "reboot")


def test_a_node_that_reboots_without_a_scheduler_still_ends_at_its_deadline(world: World) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    run, user, timer = "demo-20260101-000000-abcd", world.settings.ssh_user, timedelta(hours=1)
    config = BootConfig(run, "no-such-bucket", "us-east-1", "0" * 64, user, timer, deadline)
    node = world.launch(user_data=user_data(config), InstanceInitiatedShutdownBehavior="terminate")[0]
    wait_for("its boot script runs", lambda: world.ssh(node, f"ls orch/{run}").returncode == 0)
    wait_for("its deadline has passed", lambda: datetime.now(UTC) > deadline)
    assert world.state(node)[0] == "running", "its first boot armed the timer itself"
    control.disturb(world.home, node.instance_id, "reboot")
    wait_for("it has ended itself", lambda: world.state(node)[0] == "terminated")
    assert world.state(node)[1] == "Client.InstanceInitiatedShutdown"


def test_a_machine_that_goes_down_is_not_held_up_by_a_later_timer(world: World) -> None:
    node = world.launch(InstanceInitiatedShutdownBehavior="terminate")[0]
    world.ssh(node, "printf 'in 0\\nin 3600\\ncancel\\n' > $HOME/../power")
    wait_for("it has ended itself", lambda: world.state(node)[0] == "terminated", 20)


def test_a_slow_host_stands_still_most_of_the_time_until_it_is_healed(world: World, node: Node) -> None:
    seconds = sentinel()
    world.on(node, f"ORCH_STOP_FILE=x tmux new-session -d sleep {seconds}")
    wait_for("it sleeps", lambda: sleepers(seconds))
    control.disturb(world.home, node.instance_id, "slow")
    wait_for("it stands still", lambda: [state(pid) for pid in sleepers(seconds)] == ["T"])
    control.heal(world.home, node.instance_id, "slow")
    (pid,) = sleepers(seconds)
    # Of a host that is still slow one of so many looks would find it standing still.
    wait_for("it goes on", lambda: all(state(pid) == "S" for _ in range(50_000)))


def test_what_cannot_be_done_is_refused_in_one_line(world: World, node: Node) -> None:
    with pytest.raises(BadInput, match="cannot be disturbed by 'flood'"):
        control.disturb(world.home, node.instance_id, "flood")
    with pytest.raises(NotFound, match="i-none"):
        control.disturb(world.home, "i-none", "hang")
    with pytest.raises(BadInput, match="still to boot cannot be disturbed by 'hang'"):
        control.disturb(world.home, "next", "hang")
    gone = world.launch()[0]
    world.terminate(gone)
    with pytest.raises(OrchError, match="is terminated"):
        control.disturb(world.home, gone.instance_id, "hang")
    with pytest.raises(OrchError, match="on-demand"):
        control.rebalance(world.home, world.launch()[0].instance_id)
