"""What a scheduler hears when it asks a real host that fell silent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from orchestrator.aws.session import Session
from orchestrator.core.actions import Probe
from orchestrator.core.facts import Facts, Node
from orchestrator.run.act import Actor
from orchestrator.run.home import Home
from orchestrator.sandbox import control
from tests.core.worlds import at, instance, spec
from tests.sandbox.hosts_world import World, needs_hosts, new_world, wait_for

pytestmark = needs_hosts


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


def test_a_host_that_rebooted_and_is_back_before_it_is_asked_says_that_nothing_lives_there(world: World) -> None:
    node = world.launch()[0]
    run = replace(spec(), ssh_user=world.settings.ssh_user, ssh_port=world.settings.ssh_port)
    home = Home(world.home)
    home.keep_private_key(run.run_id, world.key.read_text())
    keys = tuple(world.on(node, "cat $SSH_HOST_KEY_DIR/*.pub").splitlines())
    seen = replace(instance(0), instance_id=node.instance_id, private_ip=node.address)
    facts = Facts(at(0), (seen,), {node.instance_id: Node(host_keys=keys)})
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
