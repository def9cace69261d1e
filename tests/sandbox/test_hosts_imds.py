"""Instance metadata: version 2 only, per host, with what EC2's own says; the fetcher of botocore is the judge."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.sandbox import control
from orchestrator.sandbox.boundary import HostSpec
from orchestrator.sandbox.imds import Metadata, reply
from tests.sandbox.hosts_world import UNFIT, Node, World, new_world, wait_for

SPEC = HostSpec(
    instance_id="i-0123456789abcdef0",
    address="127.16.3.7",
    instance_type="p3.16xlarge",
    zone="us-east-1c",
    region="us-east-1",
    image_id="ami-1",
    lifecycle="spot",
    user_data=b"#!/bin/sh\n\xff",
    public_key="ssh-ed25519 AAAA test\n",
    role_name="node",
)
ROLE = {"AccessKeyId": "ASIA1", "SecretAccessKey": "s", "Token": "t", "Expiration": "2030-01-01T00:00:00Z"}
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)


def credentials(role: str) -> dict[str, str]:
    return {"node": ROLE}[role]


def ask(metadata: Metadata, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    answer = reply(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode(), metadata, credentials)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"
    return int(head.split()[1]), body


def get(metadata: Metadata, path: str) -> tuple[int, bytes]:
    token = ask(metadata, "PUT", "/latest/api/token", **{TTL: "60"})[1].decode()
    return ask(metadata, "GET", path, **{TOKEN: token})


@pytest.fixture
def metadata() -> Metadata:
    return Metadata(SPEC, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("meta-data/instance-id", b"i-0123456789abcdef0"),
        ("meta-data/ami-id", b"ami-1"),
        ("meta-data/instance-type", b"p3.16xlarge"),
        ("meta-data/instance-life-cycle", b"spot"),
        ("meta-data/local-ipv4", b"127.16.3.7"),
        ("meta-data/placement/region", b"us-east-1"),
        ("meta-data/placement/", b"availability-zone\nregion"),
        ("meta-data/placement/availability-zone", b"us-east-1c"),
        ("meta-data/public-keys/0/openssh-key", b"ssh-ed25519 AAAA test"),
        ("meta-data/iam/security-credentials/", b"node"),
        ("user-data", b"#!/bin/sh\n\xff"),
    ],
)
def test_a_path_answers_what_ec2_would(metadata: Metadata, path: str, body: bytes) -> None:
    assert get(metadata, f"/latest/{path}") == (200, body)
    assert get(metadata, f"//latest/{path}") == (200, body)


@pytest.mark.parametrize(
    "path",
    [
        "meta-data/spot/instance-action",
        "meta-data/spot/termination-time",
        "meta-data/events/recommendations/rebalance",
        "meta-data/nothing",
        "meta-data/iam/security-credentials/other",
    ],
)
def test_what_is_not_there_is_not_found(metadata: Metadata, path: str) -> None:
    assert get(metadata, f"/latest/{path}")[0] == 404


def test_nothing_is_told_without_a_living_token_of_this_very_host(metadata: Metadata) -> None:
    path = "/latest/meta-data/instance-id"
    assert ask(metadata, "GET", path)[0] == 401
    assert ask(metadata, "GET", path, **{TOKEN: "guess"})[0] == 401
    other = Metadata(replace(SPEC, instance_id="i-2"), metadata.booted)
    foreign = ask(other, "PUT", "/latest/api/token", **{TTL: "60"})[1].decode()
    assert ask(metadata, "GET", path, **{TOKEN: foreign})[0] == 401
    own = ask(metadata, "PUT", "/latest/api/token", **{TTL: "60"})[1].decode()
    assert ask(metadata, "GET", path, **{TOKEN: own})[0] == 200
    metadata.tokens[own] = 0.0
    assert ask(metadata, "GET", path, **{TOKEN: own})[0] == 401


@pytest.mark.parametrize("ttl", ["", "0", "21601", "-1", "many"])
def test_a_token_needs_a_time_to_live_that_ec2_allows(metadata: Metadata, ttl: str) -> None:
    assert ask(metadata, "PUT", "/latest/api/token", **({TTL: ttl} if ttl else {}))[0] == 400
    assert ask(metadata, "GET", "/latest/api/token")[0] == 405
    assert ask(metadata, "PUT", "/latest/api/token", **{TTL: "60", "X-Forwarded-For": "10.0.0.1"})[0] == 403


def test_an_announced_interruption_is_served_in_both_forms(metadata: Metadata) -> None:
    metadata.interruption = "2026-01-02T03:06:05Z"
    status, body = get(metadata, "/latest/meta-data/spot/instance-action")
    assert (status, json.loads(body)) == (200, {"action": "terminate", "time": "2026-01-02T03:06:05Z"})
    assert get(metadata, "/latest/meta-data/spot/termination-time") == (200, b"2026-01-02T03:06:05Z")


def test_an_advice_to_rebalance_is_served_once_it_is_given(metadata: Metadata) -> None:
    path = "/latest/meta-data/events/recommendations/rebalance"
    assert get(metadata, path)[0] == 404
    metadata.advice = "2026-01-02T03:04:05Z"
    status, body = get(metadata, path)
    assert (status, json.loads(body)) == (200, {"noticeTime": "2026-01-02T03:04:05Z"})


def test_role_credentials_that_cannot_be_had_are_an_error_of_the_service(metadata: Metadata) -> None:
    metadata.spec = replace(SPEC, role_name="gone")
    assert get(metadata, "/latest/meta-data/iam/security-credentials/gone")[0] == 500
    metadata.spec = replace(SPEC, role_name=None)
    assert get(metadata, "/latest/meta-data/iam/security-credentials/")[0] == 404


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


@pytest.fixture(scope="module")
def node(world: World) -> Node:
    iam = world.client("iam")
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=TRUST)
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_role_policy(RoleName="node", PolicyName="all", PolicyDocument=json.dumps(policy))
    iam.create_instance_profile(InstanceProfileName="node")
    iam.add_role_to_instance_profile(InstanceProfileName="node", RoleName="node")
    spot = {"MarketType": "spot"}
    return world.launch(2, IamInstanceProfile={"Name": "node"}, InstanceMarketOptions=spot)[0]


@pytest.mark.sandbox
@pytest.mark.skipif(bool(UNFIT), reason=UNFIT)
def test_boto3_on_a_host_finds_the_role_and_reaches_the_cloud_with_it(world: World, node: Node) -> None:
    script = (
        "import boto3; s = boto3.Session(); print(s.get_credentials().method);"
        " print(boto3.client('sts').get_caller_identity()['Arn'])"
    )
    method, arn = world.on(node, f'python3 -c "{script}"').splitlines()
    assert method == "iam-role"
    assert ":assumed-role/node/" in arn


@pytest.mark.sandbox
@pytest.mark.skipif(bool(UNFIT), reason=UNFIT)
def test_a_host_meets_its_own_metadata_and_its_own_notice_over_http(world: World, node: Node) -> None:
    other = next(item for item in control.status(world.home)["hosts"] if item["instance_id"] != node.instance_id)
    port = control.status(world.home)["imds_port"]

    def fetch(address: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address, port, timeout=20)
        connection.request("PUT", "/latest/api/token", headers={TTL: "60"})
        token = connection.getresponse().read().decode()
        connection.request("GET", f"/latest/{path}", headers={TOKEN: token})
        answer = connection.getresponse()
        return answer.status, answer.read()

    assert fetch(node.address, "meta-data/instance-id") == (200, node.instance_id.encode())
    assert fetch(other["address"], "meta-data/instance-id") == (200, other["instance_id"].encode())
    document = json.loads(fetch(node.address, "dynamic/instance-identity/document")[1])
    assert (document["instanceId"], document["region"]) == (node.instance_id, "us-east-1")
    advice = "meta-data/events/recommendations/rebalance"
    assert fetch(node.address, advice)[0] == 404
    time = control.rebalance(world.home, node.instance_id)
    status, body = fetch(node.address, advice)
    assert (status, json.loads(body)) == (200, {"noticeTime": time})
    assert fetch(other["address"], advice)[0] == 404
    assert world.state(node)[0] == "running"
    notice = "meta-data/spot/instance-action"
    assert fetch(node.address, notice)[0] == 404
    control.interrupt(world.home, node.instance_id, notice_seconds=2)
    status, body = fetch(node.address, notice)
    assert (status, json.loads(body)["action"]) == (200, "terminate")
    assert fetch(other["address"], notice)[0] == 404
    wait_for("taken", lambda: world.state(node) == ("terminated", "Server.SpotInstanceTermination"))
    with pytest.raises(OSError, match="refused"):
        fetch(node.address, notice)
