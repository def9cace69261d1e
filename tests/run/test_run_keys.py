"""The key of a machine that did not launch a run: made once, and what is said where it is not let onto the nodes."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.actions import Probe, Start
from orchestrator.core.facts import Facts, Node
from orchestrator.core.spec import RunSpec
from orchestrator.errors import BadInput, Exit
from orchestrator.node.ssh import generate_key, public_half
from orchestrator.run.act import Actor
from orchestrator.run.home import Home
from orchestrator.run.keys import NodeKey, NotOffered
from orchestrator.run.lease import Lease, Owner
from orchestrator.run.ledger import Ledger
from orchestrator.sandbox.cloud import SandboxCloud
from tests.core.worlds import at, instance, spec
from tests.sandbox.cloud_fixture import until

NODE = "i-0123456789abcdef0"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def run(cloud: SandboxCloud) -> RunSpec:
    cloud.clear_faults()
    return spec()


def test_a_machine_makes_one_key_of_its_own_that_nobody_else_can_read(
    session: Session, home: Home, run: RunSpec
) -> None:
    file = NodeKey(run, session, home).file
    made = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    home.keep_private_key(run.run_id, generate_key()[0])
    assert NodeKey(run, session, home).file.read_text() == made, "of two that make one at once the first counts"
    assert [item.name for item in file.parent.iterdir()] == [file.name]


def test_the_runs_own_key_is_known_by_its_public_half(session: Session, home: Home, run: RunSpec) -> None:
    private, public = generate_key("somewhere")
    home.keep_private_key(run.run_id, private)
    assert not NodeKey(run, session, home).is_the_runs
    NodeKey(replace(run, public_key=public), session, home).offer(NODE)  # asks nobody: there is none
    assert public_half(private).split() == public.split()[:2]


def test_a_file_that_is_no_key_is_named(session: Session, home: Home, run: RunSpec) -> None:
    home.keep_private_key(run.run_id, "no key")
    with pytest.raises(BadInput, match="id_ed25519 is no SSH key"):
        NodeKey(run, session, home).offer(NODE)


def test_what_keeps_a_key_from_a_node_is_said_with_the_permission_that_is_missing(
    session: Session, home: Home, run: RunSpec, cloud: SandboxCloud
) -> None:
    key = NodeKey(run, session, home)
    with pytest.raises(NotOffered, match="EC2InstanceNotFoundException") as caught:
        key.offer(NODE)
    assert caught.value.exit_code is Exit.NOT_FOUND
    cloud.add_fault("SendSSHPublicKey", "AccessDeniedException")
    with pytest.raises(NotOffered) as caught:
        key.offer(NODE)
    assert caught.value.exit_code is Exit.NO_PERMISSION
    assert "the permission ec2-instance-connect:SendSSHPublicKey" in caught.value.hint


@pytest.mark.parametrize(
    ("code", "ends"), [("AccessDeniedException", True), ("ExpiredTokenException", False), ("ServiceException", False)]
)
def test_a_run_whose_nodes_nobody_may_start_ends_and_says_why(  # noqa: PLR0917 - the fixtures and the two columns
    session: Session, bucket: Bucket, home: Home, run: RunSpec, cloud: SandboxCloud, code: str, *, ends: bool
) -> None:
    run = replace(run, run_id=f"tiny-20261120-120000-{code[:4].lower()}")
    one = replace(instance(0), instance_id=NODE, private_ip="127.0.0.1")
    facts = Facts(at(0), (one,), {one.instance_id: Node(host_keys=("ssh-ed25519 AAAA",))})
    lease, ledger = Lease(bucket, run.run_id, Owner.me()), Ledger(bucket, run.run_id, "test")
    assert lease.try_acquire(bucket.server_time())
    ledger.read()
    said: list[str] = []
    nothing: Any = None  # prices are none of a start
    actor = Actor(run, session, bucket, home, ledger, lease, said.append, nothing)
    cloud.add_fault("SendSSHPublicKey", code, count=9)
    actor.perform(Start((one.instance_id,), {one.instance_id: 0}, 1), facts)
    until(lambda: bool(actor.complete(facts, 1)) and not actor._reaching)
    refused = ledger.read().refused
    assert (refused is not None) == ends == (not said)
    if refused is not None:
        assert (refused.kind, refused.code) == ("failed", "NO_PERMISSION")
    actor.close()


def test_a_node_that_cannot_be_asked_is_not_taken_for_lost(
    session: Session, home: Home, run: RunSpec, cloud: SandboxCloud
) -> None:
    one = replace(instance(0), instance_id=NODE, private_ip="127.0.0.1")
    facts = Facts(at(0), (one,), {one.instance_id: Node(host_keys=("ssh-ed25519 AAAA",))})
    nothing: Any = None  # a question needs neither S3 nor a lease
    said: list[str] = []
    actor = Actor(run, session, nothing, home, nothing, nothing, said.append, nothing)
    cloud.add_fault("SendSSHPublicKey", "AccessDeniedException")
    actor.perform(Probe((one.instance_id,)), facts)
    until(lambda: bool(actor.complete(facts, 1) and said))
    assert actor.complete(facts, 1).unanswered == frozenset()
    assert "cannot be asked" in said[0]
    actor.close()
