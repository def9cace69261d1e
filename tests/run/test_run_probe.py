"""What a scheduler hears when it asks a real host that fell silent; and how a machine without the run's key gets in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.aws.instance_connect import push_key
from orchestrator.aws.session import Session
from orchestrator.core.actions import Probe
from orchestrator.core.facts import Facts
from orchestrator.core.facts import Node as NodeFacts
from orchestrator.core.spec import RunSpec
from orchestrator.node.ssh import Connection, KeyRefused, connect, public_half
from orchestrator.run.act import Actor
from orchestrator.run.home import Home
from orchestrator.run.keys import NodeKey
from orchestrator.sandbox import control
from tests.core.worlds import at, instance, spec
from tests.sandbox.hosts_world import Node, World, needs_hosts, new_world, wait_for

pytestmark = needs_hosts
KEY_SECONDS = 2.0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world(key_seconds=KEY_SECONDS) as made:
        yield made


def run_of(world: World) -> RunSpec:
    return replace(spec(), ssh_user=world.settings.ssh_user, ssh_port=world.settings.ssh_port)


def host_keys(world: World, node: Node) -> tuple[str, ...]:
    return tuple(world.on(node, "cat $SSH_HOST_KEY_DIR/*.pub").splitlines())


def test_a_machine_without_the_runs_key_gets_in_by_instance_connect_for_a_while_and_on_one_host(
    world: World, tmp_path: Path
) -> None:
    run, one, other = run_of(world), *world.launch(2)
    key, session = NodeKey(run, Session(world.settings), Home(tmp_path)), Session(world.settings)
    at_one, at_other = host_keys(world, one), host_keys(world, other)
    private = key.file.read_text()

    def enters(node: Node, known: tuple[str, ...]) -> bool:
        try:
            connect(node.address, run.ssh_port, run.ssh_user, private, known, 20).close()
        except KeyRefused:
            return False
        return True

    def get_in() -> Connection | None:
        try:
            return key.connect(one.instance_id, one.address, at_one, 20)
        except KeyRefused as error:  # on a machine so slow that the key's time was over
            assert "ec2-instance-connect" in error.hint
            return None

    assert not enters(one, at_one)
    push_key(session, one.instance_id, "somebody", public_half(private))
    assert not enters(one, at_one), "it was pushed for another user"
    connection = wait_for("it gets in", get_in)
    key.offer(one.instance_id)
    assert not enters(other, at_other), "it was pushed to another host"
    wait_for("its time is over", lambda: not enters(one, at_one))
    assert connection.run("echo still in").out == "still in\n"
    connection.close()
    config = world.host_folder(one) / "sshd_config"
    config.write_text(config.read_text().replace("/pushed_keys", "/none"))  # as on an image without the package
    with pytest.raises(KeyRefused) as caught:
        key.connect(one.instance_id, one.address, at_one, 20)
    assert "its image needs the package ec2-instance-connect" in caught.value.hint


def test_a_host_that_rebooted_and_is_back_before_it_is_asked_says_that_nothing_lives_there(world: World) -> None:
    node = world.launch()[0]
    run, home = replace(run_of(world), public_key=public_half(world.key.read_text())), Home(world.home)
    home.keep_private_key(run.run_id, world.key.read_text())
    keys = host_keys(world, node)
    seen = replace(instance(0), instance_id=node.instance_id, private_ip=node.address)
    facts = Facts(at(0), (seen,), {node.instance_id: NodeFacts(host_keys=keys)})
    said: list[str] = []
    nothing: Any = None  # a question needs neither S3 nor a lease
    actor = Actor(run, Session(world.settings), nothing, home, nothing, nothing, said.append, nothing)

    def ask() -> Facts:
        """Ask, and return the facts once the answer is among them."""
        actor.perform(Probe((node.instance_id,)), facts)
        seen = len(said)
        return cast(
            "Facts", wait_for("an answer", lambda: (known := actor.complete(facts, 1)) and said[seen:] and known)
        )

    world.on(node, f"ORCH_AGENT_OF=$HOME/orch/{run.run_id}/gen-1 setsid sleep 1000 >/dev/null 2>&1 </dev/null &")
    lives = ask()
    assert (lives.answering, lives.deserted, lives.unanswered) == (
        frozenset({node.instance_id}),
        frozenset(),
        frozenset(),
    )
    control.disturb(world.home, node.instance_id, "reboot")
    wait_for("it is down", lambda: not world.answers(node))
    wait_for("it is back", lambda: world.answers(node))
    gone = ask()
    assert (gone.deserted, gone.unanswered) == (frozenset({node.instance_id}), frozenset())
    assert "neither agent nor training" in said[-1]
    actor.close()
