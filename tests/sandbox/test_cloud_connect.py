"""EC2 Instance Connect of the sandbox: which keys a host is told to take, for how long, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from orchestrator.node.ssh import generate_key
from orchestrator.sandbox.boundary import PushedKey
from orchestrator.sandbox.instance_connect_api import KEY_SECONDS, InstanceConnect
from orchestrator.sandbox.wire import Call
from tests.sandbox.cloud_fixture import NotingHosts, World, refusal, shared_world, world

__all__ = ["shared_world", "world"]

KEY = generate_key("me@here")[1]
PLAIN = " ".join(KEY.split()[:2])


def push(world: World, instance_id: str, user: str = "ubuntu", key: str = KEY) -> Callable[[], object]:
    client = world.client("ec2-instance-connect")
    return lambda: client.send_ssh_public_key(InstanceId=instance_id, InstanceOSUser=user, SSHPublicKey=key)


def test_a_running_host_takes_the_key_for_the_user(world: World) -> None:
    with world.held():
        one, other = world.run(2)
        assert refusal(push(world, one))[:2] == ("EC2InstanceStateInvalidException", 400)
    world.wait([one, other], "running")
    push(world, one)()
    assert world.hosts.keys == {one: (PushedKey("ubuntu", PLAIN),)}
    world.ec2.terminate_instances(InstanceIds=[one])
    assert refusal(push(world, one))[:2] == ("EC2InstanceStateInvalidException", 400)
    assert refusal(push(world, "i-0123456789abcdef0"))[:2] == ("EC2InstanceNotFoundException", 404)


@pytest.mark.parametrize(
    ("user", "key"),
    [
        ("ubuntu", "x" * 100),
        ("ubuntu", f"ecdsa-sha2-nistp256 {KEY.split()[1]} " + 20 * "x"),
        ("ubuntu", f"ssh-rsa {KEY.split()[1]} " + 20 * "x"),
        ("ubuntu", f"{KEY}\n{KEY}"),
        ("ubuntu", "ssh-ed25519 " + 80 * "!"),
        ("a b", KEY),
    ],
    ids=["no key", "ECDSA", "not what it says", "two lines", "no base64", "no user"],
)
def test_what_is_no_key_or_no_user_is_refused(world: World, user: str, key: str) -> None:
    (one,) = world.run()
    world.wait([one], "running")
    assert refusal(push(world, one, user, key))[:2] == ("InvalidArgsException", 400)
    assert one not in world.hosts.keys


def test_a_key_is_taken_for_its_time_and_as_long_again_when_it_is_pushed_again() -> None:
    hosts, due, now = NotingHosts(), [], [100.0]

    def after(seconds: float, job: Callable[[], None]) -> None:
        due.append((now[0] + seconds, job))

    def go_to(moment: float) -> None:
        for at, job in sorted(due, key=lambda item: item[0]):
            if now[0] < at <= moment:
                now[0] = at
                job()
        now[0] = moment

    def ask(user: str) -> None:
        body = {"InstanceId": "i-1", "InstanceOSUser": user, "SSHPublicKey": KEY}
        service.answer(Call("POST", "/", "", {}, json.dumps(body).encode()), "SendSSHPublicKey")

    service = InstanceConnect(hosts, lambda _: "running", after, KEY_SECONDS, lambda: now[0])
    ask("ubuntu")
    go_to(130)
    ask("other")
    go_to(150)
    ask("ubuntu")
    go_to(189.9)
    assert {key.user for key in hosts.keys["i-1"]} == {"ubuntu", "other"}
    go_to(190)
    assert [key.user for key in hosts.keys["i-1"]] == ["ubuntu"]
    go_to(209.9)
    assert hosts.keys["i-1"]
    go_to(210)
    assert hosts.keys["i-1"] == ()
