"""Faults on demand, interruptions, the control requests, and the HTTP server that carries all of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.errors import BadInput, NotFound, OrchError
from orchestrator.sandbox.faults import Faults
from orchestrator.sandbox.http_server import Server
from tests.sandbox.cloud_fixture import TOKEN, World, refusal, shared_world, until, world

__all__ = ["shared_world", "world"]


@pytest.fixture
def connection(world: World) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(world.endpoint)
    made = http.client.HTTPConnection(parts.hostname or "", parts.port)
    yield made
    made.close()


def control(
    connection: http.client.HTTPConnection, verb: str, body: dict[str, Any] | None = None, token: str = TOKEN
) -> tuple[int, dict[str, Any]]:
    method = "GET" if body is None else "POST"
    connection.request(method, f"/_orch/{verb}", json.dumps(body or {}), {"X-Orch-Token": token})
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("InsufficientInstanceCapacity", 500),
        ("RequestLimitExceeded", 503),
        ("MaxSpotInstanceCountExceeded", 400),
        ("UnauthorizedOperation", 403),
    ],
)
def test_the_next_calls_fail_with_the_named_error_and_then_no_more(world: World, code: str, status: int) -> None:
    world.cloud.add_fault("DescribeInstances", code, count=2)
    for _ in range(2):
        assert refusal(world.ec2.describe_instances)[:2] == (code, status)
    world.ec2.describe_instances()


@pytest.mark.parametrize(
    ("service", "operation", "asked", "action", "code"),
    [
        ("s3", "list_objects_v2", {"Bucket": "none"}, "ListObjectsV2", "SlowDown"),
        ("s3", "put_object", {"Bucket": "none", "Key": "k"}, "PutObject", "AccessDenied"),
        ("iam", "create_role", {"RoleName": "r", "AssumeRolePolicyDocument": "{}"}, "CreateRole", "AccessDenied"),
        ("sts", "get_caller_identity", {}, "GetCallerIdentity", "ExpiredToken"),
        ("ssm", "get_parameter", {"Name": "n"}, "GetParameter", "ThrottlingException"),
        ("pricing", "get_products", {"ServiceCode": "AmazonEC2"}, "GetProducts", "AccessDeniedException"),
        ("service-quotas", "list_service_quotas", {"ServiceCode": "ec2"}, "ListServiceQuotas", "AccessDeniedException"),
    ],
)
def test_every_service_can_be_made_to_fail(  # noqa: PLR0917 - the columns of the table
    world: World, service: str, operation: str, asked: dict[str, Any], action: str, code: str
) -> None:
    world.cloud.add_fault(action, code)
    assert refusal(lambda: getattr(world.client(service), operation)(**asked))[0] == code


def test_a_fault_of_a_zone_meets_only_launches_there(world: World) -> None:
    world.cloud.add_fault("RunInstances", "InsufficientInstanceCapacity", 1000, "us-east-1c")
    subnets = {s["AvailabilityZone"]: s["SubnetId"] for s in world.ec2.describe_subnets()["Subnets"]}
    for asked in ({"Placement": {"AvailabilityZone": "us-east-1c"}}, {"SubnetId": subnets["us-east-1c"]}):
        assert refusal(lambda a=asked: world.run(2, **a))[:2] == ("InsufficientInstanceCapacity", 500)  # type: ignore[misc]
    assert len(world.run(2, SubnetId=subnets["us-east-1d"])) == 2
    assert world.cloud.status()["faults"] == [
        {"action": "RunInstances", "code": "InsufficientInstanceCapacity", "count": 998, "zone": "us-east-1c"}
    ]


def test_a_lost_reply_leaves_its_effect_and_the_token_finds_it(world: World) -> None:
    world.cloud.add_fault("RunInstances", "ReplyLost")
    with world.held():
        assert refusal(lambda: world.run(3, ClientToken="lost"))[:2] == ("InternalError", 500)
        launched = [i["instance_id"] for i in world.cloud.status()["instances"] if i["state"] == "pending"]
    assert len(launched) == 3
    # Not even a full zone keeps the repetition from its answer.
    world.cloud.add_fault("RunInstances", "InsufficientInstanceCapacity")
    assert world.run(3, ClientToken="lost") == launched


def test_faults_strike_in_the_order_they_were_asked_for() -> None:
    faults = Faults()
    faults.add("ec2:RunInstances", "First")
    faults.add("RunInstances", "Second", 2)
    struck = [faults.strike("RunInstances") for _ in range(4)]
    assert [fault.code if fault else None for fault in struck] == ["First", "Second", "Second", None]
    with pytest.raises(ValueError, match="at least once"):
        faults.add("RunInstances", "Never", 0)
    faults.add("s3:GetObject/sets/large/", "SlowDown", 9)
    places = ("sets/small/a", "sets/large/a", "")
    assert [faults.strike("GetObject", place=place) is not None for place in places] == [False, True, False]
    assert faults.pending()[0] == {"action": "GetObject/sets/large/", "code": "SlowDown", "count": 8, "zone": None}


def test_an_interruption_is_announced_and_then_takes_the_instance(world: World) -> None:
    (instance_id,) = world.run(1)
    world.wait([instance_id], "running")
    before = datetime.now(UTC).replace(microsecond=0)
    told = world.cloud.interrupt(instance_id, 1.0)
    assert world.hosts.notices[instance_id] == told
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told)
    assert before <= datetime.fromisoformat(told) <= datetime.now(UTC) + timedelta(seconds=1)
    world.wait([instance_id], "terminated")
    assert instance_id in world.hosts.halted
    shown = world.instance(instance_id)
    assert shown["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert re.fullmatch(r"Service initiated \(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d GMT\)", shown["StateTransitionReason"])
    (request,) = world.ec2.describe_spot_instance_requests()["SpotInstanceRequests"][-1:]
    assert request["Status"]["Code"] == "instance-terminated-no-capacity"


def test_a_terminated_instance_is_not_taken_again_when_its_notice_is_over(world: World) -> None:
    (instance_id,) = world.run(1)
    world.wait([instance_id], "running")
    world.cloud.interrupt(instance_id, 0.5)
    world.ec2.terminate_instances(InstanceIds=[instance_id])
    world.wait([instance_id], "terminated")
    until(lambda: datetime.now(UTC) > datetime.fromisoformat(world.hosts.notices[instance_id]) + timedelta(seconds=1))
    assert world.instance(instance_id)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_a_kill_takes_the_instance_at_once(world: World) -> None:
    (instance_id,) = world.run(1)
    world.wait([instance_id], "running")
    world.cloud.kill(instance_id)
    world.wait([instance_id], "terminated")
    assert instance_id not in world.hosts.notices
    assert world.instance(instance_id)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    with pytest.raises(OrchError, match="is terminated"):
        world.cloud.kill(instance_id)


def test_only_spot_instances_that_exist_can_be_interrupted(world: World) -> None:
    (instance_id,) = world.run(1, InstanceMarketOptions=None)
    world.wait([instance_id], "running")
    with pytest.raises(OrchError, match="on-demand"):
        world.cloud.interrupt(instance_id)
    for call in (world.cloud.interrupt, world.cloud.kill, world.cloud.shut_down_by_host):
        with pytest.raises(NotFound):
            call("i-none")


def test_the_control_requests_do_what_they_say(world: World, connection: http.client.HTTPConnection) -> None:
    (instance_id,) = world.run(1)
    world.wait([instance_id], "running")
    status, told = control(connection, "status")
    mine = {i["instance_id"]: i for i in told["instances"]}[instance_id]
    assert (status, mine["state"], mine["lifecycle"], told["region"]) == (200, "running", "spot", "us-east-1")
    assert mine["address"] == world.instance(instance_id)["PrivateIpAddress"]
    fault = {"action": "RunInstances", "code": "VcpuLimitExceeded", "count": 2, "zone": "us-east-1a"}
    assert control(connection, "fault", fault) == (200, {})
    assert control(connection, "status")[1]["faults"] == [fault]
    assert control(connection, "clear-faults", {"x": 1}) == (200, {})
    assert control(connection, "status")[1]["faults"] == []
    assert control(connection, "quota", {"code": "L-7212CCBC", "value": 64}) == (200, {})
    assert control(connection, "status")[1]["quotas"]["L-7212CCBC"] == 64
    assert control(connection, "quota", {"code": "L-7212CCBC", "value": 20_000}) == (200, {})
    status, told = control(connection, "interrupt", {"instance_id": instance_id, "notice_seconds": 60})
    assert (status, told) == (200, {"time": world.hosts.notices[instance_id]})
    status, told = control(connection, "rebalance", {"instance_id": instance_id})
    assert (status, told) == (200, {"time": world.hosts.advice[instance_id]})
    assert control(connection, "kill", {"instance_id": instance_id}) == (200, {})
    world.wait([instance_id], "terminated")


def test_the_meter_counts_what_runs_and_forgives_what_was_taken_early(
    world: World, connection: http.client.HTTPConnection
) -> None:
    tagged = [{"ResourceType": "instance", "Tags": [{"Key": "orch:run", "Value": "metered"}]}]
    kept, taken = world.run(2, TagSpecifications=tagged)
    bought = world.run(1, InstanceMarketOptions=None, TagSpecifications=tagged)[0]
    world.wait([kept, taken, bought], "running")
    world.cloud.kill(taken)
    _, told = control(connection, "meter", {"run": "metered"})
    rows = {row["instance_id"]: row for row in told["instances"]}
    assert rows.keys() == {kept, taken, bought}
    assert (rows[taken]["taken"], rows[taken]["usd"], rows[taken]["ended"] is None) == (True, "0.000000", False)
    # m5.large is $0.096 an hour on demand, and 60 seconds are the least that is charged.
    assert (rows[bought]["seconds"], rows[bought]["usd"]) == (60, "0.001600")
    assert 0 < float(rows[kept]["usd"]) < 0.0016
    assert float(told["usd"]) == pytest.approx(sum(float(row["usd"]) for row in told["instances"]))
    assert control(connection, "meter", {"run": "none"})[1]["instances"] == []


@pytest.mark.parametrize(
    ("verb", "body", "status", "word"),
    [
        ("kill", {"instance_id": "i-none"}, 404, "i-none"),
        ("kill", {"x": 1}, 400, "instance_id"),
        ("quota", {"code": "L-0", "value": 1}, 400, "L-0"),
        ("fault", {"action": "A", "code": "B", "count": 0}, 400, "at least once"),
        ("fly", {"x": 1}, 404, "fly"),
        ("credentials", {"role_name": "nobody"}, 404, "nobody"),
    ],
)
def test_a_control_request_that_fails_says_why_in_one_line(
    connection: http.client.HTTPConnection, verb: str, body: dict[str, Any], status: int, word: str
) -> None:
    found, told = control(connection, verb, body)
    assert (found, word in told["error"], "\n" in told["error"]) == (status, True, False)


def test_without_the_token_nothing_is_controlled(connection: http.client.HTTPConnection) -> None:
    for token in ("", "wrong", "é"):
        assert control(connection, "status", token=token)[0] == 403
    assert control(connection, "kill", {"instance_id": "i"}, token="wrong")[0] == 403


def test_one_connection_carries_many_requests(connection: http.client.HTTPConnection) -> None:
    control(connection, "status")
    first = connection.sock
    assert first is not None
    for _ in range(5):
        assert control(connection, "status")[0] == 200
    assert connection.sock is first


def test_a_body_of_chunks_is_read_whole_and_the_connection_goes_on(connection: http.client.HTTPConnection) -> None:
    pieces = [b'{"action": "A", ', b'"code": "B"', b"}"]
    headers = {"X-Orch-Token": TOKEN, "Transfer-Encoding": "chunked"}
    connection.request("POST", "/_orch/fault", iter(pieces), headers, encode_chunked=True)
    assert connection.getresponse().read() == b"{}"
    assert control(connection, "status")[1]["faults"][0]["code"] == "B"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])  # noqa: S104 - what must be refused
def test_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(BadInput):
        Server(lambda environ, start_response: [b""], host, 0)


def test_the_aws_command_line_works_on_it(world: World, tmp_path: Path) -> None:
    ids = world.run(2)
    environ = os.environ | {
        "AWS_ENDPOINT_URL": world.endpoint,
        "AWS_ACCESS_KEY_ID": world.cloud.access_key,
        "AWS_SECRET_ACCESS_KEY": world.cloud.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    def aws(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("aws")), *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=120)
        return done.stdout

    query = "Reservations[].Instances[].InstanceId"
    shown = json.loads(aws("ec2", "describe-instances", "--instance-ids", *ids, "--query", query, "--output", "json"))
    assert shown == ids
    world.s3.create_bucket(Bucket="from-the-cli")
    (tmp_path / "file").write_bytes(os.urandom(9_000_000))
    aws("s3", "cp", str(tmp_path / "file"), "s3://from-the-cli/a/file")
    assert "from-the-cli" in aws("s3", "ls")
    stored = world.s3.get_object(Bucket="from-the-cli", Key="a/file")["Body"].read()
    assert stored == (tmp_path / "file").read_bytes()
