"""A gang that checks itself: every node's own code over real connections on loopback addresses."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.agent import hub, preflight
from orchestrator.agent.checks import local_checks
from orchestrator.agent.config import NodeConfig
from orchestrator.agent.preflight import Checkup
from orchestrator.core import ids
from orchestrator.core.preflight import Preflight
from tests.agent.agent_world import RUN, node_config

Node = Callable[[int], NodeConfig]
SIZE = 4


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that any machine resolves."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """Configurations of the nodes of a gang of four."""
    # Addresses and, by them, ports of this process alone.
    net = f"127.{40 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
    monkeypatch.setattr(preflight, "RETRY", 0.05)

    def make(rank: int) -> NodeConfig:
        ips = tuple(f"{net}.{1 + index}" for index in range(SIZE))
        home = tmp_path / str(rank)
        home.mkdir(exist_ok=True)
        changes = {"rank": rank, "num_nodes": SIZE, "node_ips": ips, "preflight": "auto", "network_gbit": 1e-6}
        return node_config(home, **changes)

    yield make


def check(configs: list[NodeConfig]) -> dict[int, bool]:
    """Return what the checks of these nodes, all at once, say about the training."""
    done: dict[int, bool] = {}
    threads = [threading.Thread(target=lambda c: done.update({c.rank: Checkup(c).run()}), args=(c,)) for c in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return done


def found(config: NodeConfig) -> Preflight:
    return Preflight.from_json(json.loads(config.preflight_file.read_text()))


def test_a_healthy_gang_measures_its_links_and_goes_on(node: Node) -> None:
    configs = [node(rank) for rank in range(SIZE)]
    assert check(configs) == dict.fromkeys(range(SIZE), True)
    for config in configs:
        seen = found(config)
        assert sorted(seen.links) == [rank for rank in range(SIZE) if rank != config.rank]
        assert min(seen.links.values()) > 0
        assert seen.all_reduce is not None
        assert seen.all_reduce > 0
        assert {check.name for check in seen.checks} == {"disk", "names", "clock"}
        assert (seen.unfit, seen.missing) == ({}, ())


def test_a_node_that_joins_and_then_says_nothing_holds_the_others_back_and_is_named(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ORDER_SECONDS", {"link": 1.0, "ring": 10.0})
    configs = [node(rank) for rank in range(SIZE - 1)]
    mute = threading.Thread(target=join_and_say_nothing, args=(node(SIZE - 1),))
    mute.start()
    assert check(configs) == dict.fromkeys(range(SIZE - 1), False)
    mute.join(60)
    for config in configs:
        assert found(config).unfit == {SIZE - 1: "it stopped answering"}


def join_and_say_nothing(config: NodeConfig) -> None:
    address = (config.node_ips[0], ids.preflight_port(config.run, config.generation))
    hello = {"word": f"{RUN}/1", "rank": config.rank, "port": 9, "checks": [], "time": time.time()}
    with connect(address) as link:
        link.sendall(json.dumps(hello).encode() + b"\n")
        while link.recv(65536):
            pass


def connect(address: tuple[str, int]) -> socket.socket:
    for _ in range(500):
        try:
            return socket.create_connection(address)
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the node of rank 0 was never there")


def test_strangers_are_hung_up_on_and_a_node_that_comes_again_is_welcome(node: Node) -> None:
    configs = [node(rank) for rank in range(SIZE)]
    address = (configs[0].node_ips[0], ids.preflight_port(RUN, 1))

    def intrude() -> None:
        for said in (b"GET / HTTP/1.1\r\n", b'{"word": "another/1", "rank": 1}\n', b'{"rank": 99}\n'):
            with connect(address) as link:
                link.sendall(said)
        with connect(address) as link:
            link.sendall(
                json.dumps({"word": f"{RUN}/1", "rank": 1, "port": 9, "checks": [], "time": 0}).encode() + b"\n"
            )

        check(configs[1:])

    late = threading.Thread(target=intrude)
    late.start()
    assert check(configs[:1]) == {0: True}
    late.join(60)
    assert found(configs[1]).unfit == {}


def test_a_node_alone_looks_at_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim(tmp_path, monkeypatch, "nvidia-smi", "printf '0, 0\\n1, [N/A]\\n'")
    shim(tmp_path, monkeypatch, "dmesg", "echo 'NVRM: Xid (PCI:0000:00:1e): 31, pid=1'")
    shim(tmp_path, monkeypatch, "python3", 'echo NCCL says something; echo "{\\"rate\\": $WORLD_SIZE}"')
    config = replace(node_config(tmp_path / "home"), device="cuda", procs_per_node=2, preflight="auto")
    assert Checkup(config).run()
    assert (found(config).torch, found(config).notes) == (2.0, ())
    states = {check.name: (check.state, check.detail) for check in found(config).checks}
    assert states["gpus"] == ("ok", "2 GPUs")
    assert states["xid"] == ("warn", "the kernel reports Xid 31")
    shim(tmp_path, monkeypatch, "python3", "exit 1")
    assert Checkup(config).run()
    assert (found(config).torch, found(config).notes) == (None, (hub.NO_TORCH,))
    assert not Checkup(replace(config, procs_per_node=8)).run()
    assert found(config).unfit == {0: "gpus: 2 of 8 GPUs"}


@pytest.mark.parametrize(
    ("program", "says", "why"),
    [
        ("nvidia-smi", "printf '0, 0\\n1, 12\\n'", "gpus: GPU 1: 12 uncorrectable ECC errors"),
        ("nvidia-smi", "exit 9", "gpus: nvidia-smi does not answer"),
        (
            "dmesg",
            "echo 'NVRM: Xid (PCI:0000:00:1e): 79, GPU has fallen off the bus.'",
            "xid: the kernel reports Xid 79",
        ),
    ],
)
def test_broken_gpus_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, says: str, why: str
) -> None:
    shim(tmp_path, monkeypatch, "nvidia-smi", "printf '0, 0\\n1, 0\\n'")
    shim(tmp_path, monkeypatch, program, says)
    failed = [check for check in local_checks(tmp_path, "us-east-1", 2) if check.state == "fail"]
    assert [f"{check.name}: {check.detail}" for check in failed] == [why]


@pytest.mark.parametrize(
    ("says", "found"),
    [
        (
            "printf '    domain: rdmap16s27-rdm\\n    domain: rdmap16s27-dgrm\\n    domain: rdmap32s27-rdm\\n'",
            "ok: EFA, 2",
        ),
        ("printf '    domain: efa_0-rdm\\n    domain: efa_0-dgrm\\n'", "warn: fi_info sees 1 of 2 EFA interfaces"),
        ("exit 61", "warn: fi_info sees 0 of 2 EFA interfaces, so NCCL goes by TCP"),
        ("", "warn: no fi_info"),
    ],
)
def test_a_machine_whose_fabric_is_not_there_is_told_of_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, found: str
) -> None:
    shim(tmp_path, monkeypatch, "nvidia-smi", "printf '0, 0\\n'")
    if says:
        shim(tmp_path, monkeypatch, "fi_info", says)
    (fabric,) = (check for check in local_checks(tmp_path, "us-east-1", 1, 2) if check.name == "fabric")
    assert f"{fabric.state}: {fabric.detail}".startswith(found)
    # Without EFA interfaces, and on CPUs, nobody misses it.
    names = [check.name for wanted in ((1, 0), (0, 2)) for check in local_checks(tmp_path, "us-east-1", *wanted)]
    assert "fabric" not in names


def test_a_disk_that_cannot_be_written_is_no_place_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://no-such-host.invalid:1")
    states = {check.name: check.state for check in local_checks(tmp_path / "gone", "us-east-1", 0)}
    assert states == {"disk": "fail", "names": "warn"}


def shim(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str) -> None:
    """Put a program first on the PATH."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / name).write_text(f"#!/bin/sh\n{body}\n")
    (programs / name).chmod(0o755)
    if str(programs) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.long
def test_torch_is_asked_for_its_own_all_reduce(node: Node) -> None:
    configs = [replace(node(rank), preflight="torch") for rank in range(SIZE)]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    assert check(configs) == dict.fromkeys(range(SIZE), True)
    assert (found(configs[0]).torch or 0) > 0
