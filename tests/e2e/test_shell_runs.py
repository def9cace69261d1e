"""Runs whose `run` is a shell command, through the command line, on real hosts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.recompute import spot_dollars
from tests.e2e.sandbox_world import ORCH, World, kill_scheduler, phase, running, wait_for

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def world(world: World) -> World:
    world.orch("sandbox", "up")
    return world


def test_a_run_ends_with_everything_gone_and_a_bill_that_ec2_agrees_with(world: World) -> None:
    printed = world.launch("hello", "echo rank $ORCH_NODE_RANK of $ORCH_NUM_NODES on $(hostname); sleep 2", num_nodes=4)
    run_id = world.run_id("hello")
    status = next(item for item in world.json("status") if item["run_id"] == run_id)
    assert (status["phase"], status["num_nodes"]) == ("finished", 4)
    assert "saving" in printed.lower()
    instances = world.instances(run_id)
    assert len(instances) == 4
    assert {item["State"]["Name"] for item in instances} == {"terminated"}
    assert len({item["Placement"]["AvailabilityZone"] for item in instances}) == 1
    ec2 = world.client("ec2")
    assert [g["GroupName"] for g in ec2.describe_security_groups()["SecurityGroups"] if "orch-" in g["GroupName"]] == []
    assert ec2.describe_key_pairs()["KeyPairs"] == []
    assert ec2.describe_placement_groups()["PlacementGroups"] == []
    assert [v for v in ec2.describe_volumes()["Volumes"] if v["State"] != "deleted"] == []
    bill = world.json("cost", run_id)
    for line in bill["instances"]:
        instance = next(item for item in instances if item["InstanceId"] == line["instance_id"])
        assert Decimal(line["usd"]) == spot_dollars(ec2, instance)
    total = sum((Decimal(line["usd"]) for line in bill["instances"] + bill["other"]), Decimal(0))
    assert Decimal(bill["spot_usd_high"]) == total == Decimal(bill["spot_usd_low"])
    assert Decimal(bill["saving"]) == Decimal(bill["on_demand_usd"]) - total
    assert [line["kind"] for line in bill["other"]].count("ebs") == 4
    assert world.json("gc")["orphans"] == []
    for rank in range(4):
        lines = world.orch("logs", run_id, "--node", str(rank)).stdout
        assert f"rank {rank} of 4 on" in lines


def test_a_rank_that_fails_ends_the_run_with_its_last_words(world: World) -> None:
    script = "if [ $ORCH_NODE_RANK = 1 ]; then echo what went wrong; exit 3; fi; sleep 300"
    printed = world.launch("broken", script, check=1)
    assert "node 1" in printed
    assert "code 3" in printed
    assert "what went wrong" in printed
    assert {item["State"]["Name"] for item in world.instances(world.run_id("broken"))} == {"terminated"}


def test_a_failing_setup_is_named_as_such(world: World) -> None:
    printed = world.launch("unset-up", "echo never", check=1, setup="echo no such package; false", num_nodes=1)
    assert "setup" in printed
    assert "no such package" in printed


def test_the_gang_lands_whole_in_the_third_zone(world: World) -> None:
    plan = world.json("plan", "--cloud", "sandbox", world.experiment("third", "hostname"))
    zones = [item["zone"] for item in plan["offers"]]
    for zone in zones[:2]:
        world.orch("sandbox", "fault", "RunInstances", "InsufficientInstanceCapacity", "--zone", zone)
    world.launch("third", "hostname", num_nodes=3)
    instances = world.instances(world.run_id("third"))
    assert [item["Placement"]["AvailabilityZone"] for item in instances] == [zones[2]] * 3


def test_no_capacity_anywhere_is_one_line_and_exit_three_and_leaves_nothing(world: World) -> None:
    offers = world.json("plan", "--cloud", "sandbox", world.experiment("nowhere", "hostname"))["offers"]
    world.orch("sandbox", "fault", "RunInstances", "InsufficientInstanceCapacity", "--count", str(len(offers)))
    printed = world.launch("nowhere", "hostname", check=3)
    assert re.search(r"no room for 2 nodes anywhere", printed)
    assert world.instances(world.run_id("nowhere")) == []
    assert world.json("gc")["orphans"] == []


def test_two_runs_of_one_name_launched_at_once_do_not_meet(world: World) -> None:
    # Each run's first node holds its rendezvous port on every address while the other does the same.
    serve = (
        "if [ $ORCH_NODE_RANK = 0 ]; then timeout 6 python3 -m http.server --bind 0.0.0.0 $MASTER_PORT"
        " || test $? = 124; "
        "else sleep 6; fi; echo nodes $ORCH_NODE_IPS port $MASTER_PORT"
    )
    file = world.experiment("side", serve)
    started = [world.start("launch", "--cloud", "sandbox", "-y", file) for _ in range(2)]
    for process in started:
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 0, output
    runs = [row["run_id"] for row in world.json("status") if row["name"] == "side"]
    assert len(set(runs)) == 2, "one name, launched twice in the same moment: two runs"
    said = [world.orch("logs", run_id, "--node", "1").stdout for run_id in runs]
    addresses, ports = zip(*(re.search(r"nodes (.*) port (\d+)", text).groups() for text in said), strict=True)  # type: ignore[union-attr]
    assert not set(addresses[0].split()) & set(addresses[1].split())
    assert ports[0] != ports[1]


def test_a_secret_is_where_the_script_needs_it_and_nowhere_else(world: World) -> None:
    value = "s3cr3t-9f8e7d6c5b4a"
    file = world.experiment(
        "quiet", 'test -n "$WANDB_API_KEY" && echo "it is $WANDB_API_KEY"; sleep 3', secrets=["WANDB_API_KEY"]
    )
    refused = world.orch("launch", "--cloud", "sandbox", "-y", file, check=2)
    assert "WANDB_API_KEY" in refused.stderr
    process = subprocess.Popen(
        [*ORCH, "launch", "--cloud", "sandbox", "-y", file],
        env=world.environment | {"WANDB_API_KEY": value},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    seen = set()
    while process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = entry.read_bytes()
            except OSError:
                continue
            if value.encode() in command:
                seen.add(command)
        time.sleep(0.5)
    output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, output
    assert value not in output
    assert seen == set()
    run_id = world.run_id("quiet")
    found = [key for key in world.keys("") if not key.startswith("bundles/") and value.encode() in world.body(key)]
    assert found == []
    ec2 = world.client("ec2")
    for item in world.instances(run_id):
        assert value not in str(item)
        data = ec2.describe_instance_attribute(InstanceId=item["InstanceId"], Attribute="userData")
        assert value not in str(data)
    assert not list((world.home / "runs" / run_id).glob("secrets*"))


def test_a_malformed_file_gets_every_fault_before_anything_is_called() -> None:
    fresh = World()
    try:
        file = fresh.home / "bad.yaml"
        file.write_text("name: a$(b)\nnum_nodes: 0\nmax_duration: soon\nresorces: {}\nresources: {disk_size: big}\n")
        done = fresh.orch("launch", "--cloud", "sandbox", "-y", str(file), check=2)
        for word in ("name", "num_nodes", "max_duration", "resorces", "resources", "disk_size", "run"):
            assert word in done.stderr
        assert not (fresh.home / "sandbox").exists(), "not even the sandbox was started"
    finally:
        fresh.close()


def test_stop_and_resume_keep_to_one_run(world: World) -> None:
    script = "echo generation $ORCH_GENERATION; test $ORCH_GENERATION = 2 || sleep 300"
    process = world.start(
        "launch", "--cloud", "sandbox", "-y", "--set", "checkpoint_grace=3s", world.experiment("twice", script)
    )
    run_id = wait_for("the run is running", lambda: running(world, "twice"))
    world.orch("stop", run_id)
    process.communicate(timeout=120)
    assert process.returncode == 6
    world.orch("resume", run_id)
    wait_for("it has finished", lambda: phase(world, run_id) == "finished")
    instances = world.instances(run_id)
    assert len(instances) == 4
    assert len(world.json("cost", run_id)["instances"]) == 4


def test_an_interruption_that_nothing_can_replace_is_said_terminated_and_billed(world: World) -> None:
    file = world.experiment("taken", "sleep 300", checkpoint_grace="5s", capacity_wait="1s")
    offers = world.json("plan", "--cloud", "sandbox", file)["offers"]
    process = world.start("launch", "--cloud", "sandbox", "-y", file)
    run_id = wait_for("the run is running", lambda: running(world, "taken"))
    victim = world.instances(run_id)[0]["InstanceId"]
    # What is missing is asked for once, then the whole gang everywhere.
    world.orch("sandbox", "fault", "RunInstances", "InsufficientInstanceCapacity", "--count", str(1 + len(offers)))
    world.orch("sandbox", "interrupt", victim, "--after", "3")
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 3, output
    assert victim in output
    assert world.json("gc")["orphans"] == []
    bill = world.json("cost", run_id)
    taken = next(line for line in bill["instances"] if line["instance_id"] == victim)
    assert taken["end_reason"] == "Server.SpotInstanceTermination"
    assert Decimal(bill["spot_usd_low"]) == Decimal(bill["spot_usd_high"]) - Decimal(taken["usd"])


def test_attaching_shows_the_trainings_own_output_and_detaching_leaves_it_running(world: World) -> None:
    script = "for i in $(seq 900); do echo node $ORCH_NODE_RANK says $i; sleep 0.3; done"
    file = world.experiment("chatty", script)
    process = world.start("launch", "--cloud", "sandbox", "-y", "--set", "checkpoint_grace=3s", file)
    run_id = wait_for("the run is running", lambda: running(world, "chatty"))
    seen = attach(world, run_id, "--node", "1")
    assert re.search(rb"node 1 says \d+", seen)
    # The last node's window is not the one in sight, so what it shows says that all were attached to.
    seen = attach(world, run_id, "--all", first=b"\x02p")
    assert re.search(rb"node 1 says \d+", seen)
    assert re.search(rb"0:node-0.*1:node-1", seen)
    inside = ["tmux", "-L", f"outer-{run_id}", "-f", "/dev/null", "new-session"]
    seen = attach(world, run_id, "--all", first=b"\x02p", within=inside)
    assert re.search(rb"node 1 says \d+", seen)
    assert phase(world, run_id) == "running"
    assert f"{run_id} is of this name and has machines now" in world.orch("plan", "--cloud", "sandbox", file).stdout
    world.orch("exec", run_id, "--", "echo here is $ORCH_NODE_RANK $(tmux list-clients | wc -l)")
    world.orch("stop", run_id)
    process.communicate(timeout=150)


def attach(world: World, run_id: str, *options: str, first: bytes = b"", within: Sequence[str] = ()) -> bytes:
    """Attach through a pty, read a few seconds, detach with the tmux prefix, and return what was shown.

    `first` are keys that are pressed until node 1 is seen, `within` is the command under which orch runs.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(world.environment | {"TERM": "xterm", "TMUX_TMPDIR": str(world.home)})
        argv = [*within, *ORCH, "attach", run_id, *options]
        os.execvp(argv[0], argv)  # noqa: S606
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
    shown = b""
    end = time.monotonic() + 40
    again = time.monotonic()
    while time.monotonic() < end and b"node 1 says " not in shown:
        if select.select([terminal], [], [], 0.5)[0]:
            shown += os.read(terminal, 65536)
        if first and b" says " in shown and time.monotonic() > again:
            again = time.monotonic() + 5
            press(terminal, first)
    end = time.monotonic() + 40
    again = 0.0
    status = None
    while time.monotonic() < end and status is None:
        if time.monotonic() > again:
            again = time.monotonic() + 5
            press(terminal, b"\x02d")
        try:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 65536)
        except OSError:
            pass
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(terminal)
    assert status is not None, "attach did not end after detaching"
    return shown


def press(terminal: int, keys: bytes) -> None:
    """Press keys one after the other: those that come within a millisecond are pasted text to tmux."""
    with contextlib.suppress(OSError):
        for key in keys:
            os.write(terminal, bytes([key]))
            time.sleep(0.3)


@pytest.mark.long
def test_a_node_with_a_slow_all_reduce_is_replaced_before_the_training_begins(world: World) -> None:
    world.orch("sandbox", "disturb", "next", "slow")
    world.launch("sluggish", "echo generation $ORCH_GENERATION trains", num_nodes=4, preflight="auto")
    run_id = world.run_id("sluggish")
    rows = world.json("doctor", run_id)
    (slow,) = [row for row in rows if row["unfit"]]
    assert slow["generation"] == 1
    assert "its best link gives" in slow["unfit"]
    fit = [row for row in rows if row["generation"] == 2]
    assert sorted(row["rank"] for row in fit) == [0, 1, 2, 3]
    assert slow["instance_id"] not in {row["instance_id"] for row in fit}
    assert all(len(row["links"]) == 3 and row["all_reduce"] for row in fit)
    assert len(world.instances(run_id)) == 5
    said = world.orch("logs", run_id).stdout
    assert "generation 2 trains" in said
    assert "generation 1 trains" not in said
    assert "unfit: its best link gives" in world.orch("doctor", run_id).stdout
    assert "begins anew" not in said, "nothing was trained before"
    starts = world.json("status", run_id, "--timing")
    assert {name for row in starts for name in row["stages"]} == {"request", "boot", "bundle", "ssh", "preflight"}
    assert [(row["generation"], row["rank"], row["now"]) for row in starts] == [
        (generation, rank, None) for generation in (1, 2) for rank in range(4)
    ]
    assert all("preflight" in row["stages"] for row in starts if row["instance_id"] != slow["instance_id"])


def test_the_scheduler_can_be_killed_and_resumed_without_another_instance(world: World) -> None:
    file = world.experiment("survivor", "sleep 12; echo done")
    world.orch("launch", "--cloud", "sandbox", "-y", "--detach", file)
    run_id = wait_for("the run is running", lambda: running(world, "survivor"))
    kill_scheduler(run_id)
    world.orch("resume", run_id)
    wait_for("it has finished", lambda: phase(world, run_id) == "finished")
    assert len(world.instances(run_id)) == 2
