"""What a scheduler hears when it asks a real host that fell silent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.core.facts import Facts, Node
from orchestrator.run.home import Home
from orchestrator.run.nodes import Deserted, NodeCommands
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
    commands = NodeCommands(run, cast("Bucket", None), home)

    world.on(node, f"ORCH_AGENT_OF=$HOME/orch/{run.run_id}/gen-1 setsid sleep 1000 >/dev/null 2>&1 </dev/null &")
    commands.probe(facts, node.instance_id)
    control.disturb(world.home, node.instance_id, "reboot")
    wait_for("it is down", lambda: not world.answers(node))
    wait_for("it is back", lambda: world.answers(node))
    with pytest.raises(Deserted, match="neither agent nor training"):
        commands.probe(facts, node.instance_id)
