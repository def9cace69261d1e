"""Who may do what in the sandbox: real credentials and false signatures are refused, roles obey their policies."""

from __future__ import annotations

import http.client
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.errors import NotFound
from orchestrator.sandbox.policies import evaluate
from tests.sandbox.cloud_fixture import World, refusal, shared_world, world

__all__ = ["shared_world", "world"]

NODE_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::runs/runs/r1/*"},
        {
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": "arn:aws:s3:::runs",
            "Condition": {"StringLike": {"s3:prefix": "runs/r1/*"}},
        },
    ],
}


@pytest.mark.parametrize("key", ["AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE"])
@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        ("ec2", "describe_instances", "AuthFailure"),
        ("s3", "list_buckets", "InvalidAccessKeyId"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("ssm", "describe_parameters", "InvalidClientTokenId"),
    ],
)
def test_real_credentials_are_refused_with_the_reason(
    world: World, key: str, service: str, operation: str, code: str
) -> None:
    stranger = world.client(service, aws_access_key_id=key, aws_secret_access_key="s" * 40)
    found, status, message = refusal(getattr(stranger, operation))
    assert (found, status in {401, 403}) == (code, True)
    assert "not this sandbox's" in message
    assert "s" * 40 not in message
    assert key not in message


@pytest.mark.parametrize(("service", "operation"), [("ec2", "describe_instances"), ("s3", "list_buckets")])
def test_a_wrong_secret_is_refused(world: World, service: str, operation: str) -> None:
    stranger = world.client(service, aws_secret_access_key="wrong")
    assert refusal(getattr(stranger, operation))[:2] == ("SignatureDoesNotMatch", 403)


def test_an_unsigned_request_is_refused(world: World) -> None:
    parts = urlsplit(world.endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    for method, path in (("GET", "/"), ("GET", "/bucket/key"), ("POST", "/")):
        connection.request(method, path)
        reply = connection.getresponse()
        assert (reply.status, b"MissingAuthenticationToken" in reply.read()) == (400, True)
    connection.close()


def test_the_caller_is_the_sandbox_user_of_the_account(world: World) -> None:
    who = world.client("sts").get_caller_identity()
    assert (who["Account"], who["Arn"]) == ("123456789012", "arn:aws:iam::123456789012:user/sandbox")


def test_another_region_is_refused(world: World) -> None:
    assert refusal(world.client("ec2", region_name="eu-west-1").describe_instances)[0] == "OptInRequired"


def node_role(world: World, name: str) -> dict[str, Any]:
    """Set a role up as production code does, and return keyword arguments for clients with its credentials."""
    iam = world.client("iam")
    trust = {
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]
    }
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust), Tags=[{"Key": "a", "Value": "b"}])
    iam.put_role_policy(RoleName=name, PolicyName="node", PolicyDocument=json.dumps(NODE_POLICY))
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    assert iam.get_role(RoleName=name)["Role"]["RoleName"] == name
    assert iam.get_role_policy(RoleName=name, PolicyName="node")["PolicyDocument"] == NODE_POLICY
    profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    assert [role["RoleName"] for role in profile["Roles"]] == [name]
    keys = world.cloud.role_credentials(name)
    assert datetime.fromisoformat(keys["Expiration"]) > datetime.now(UTC) + timedelta(hours=1)
    return {
        "aws_access_key_id": keys["AccessKeyId"],
        "aws_secret_access_key": keys["SecretAccessKey"],
        "aws_session_token": keys["Token"],
    }


def test_a_role_does_what_its_policy_allows_and_nothing_else(world: World) -> None:
    keys = node_role(world, "node-1")
    world.s3.create_bucket(Bucket="runs")
    world.s3.put_object(Bucket="runs", Key="runs/r2/secret", Body=b"x")
    mine, denied = world.client("s3", **keys), ("AccessDenied", 403)
    mine.put_object(Bucket="runs", Key="runs/r1/beacon", Body=b"alive", IfNoneMatch="*")
    assert mine.get_object(Bucket="runs", Key="runs/r1/beacon")["Body"].read() == b"alive"
    assert mine.list_objects_v2(Bucket="runs", Prefix="runs/r1/")["KeyCount"] == 1
    assert refusal(lambda: mine.list_objects_v2(Bucket="runs", Prefix="runs/"))[:2] == denied
    assert refusal(lambda: mine.get_object(Bucket="runs", Key="runs/r2/secret"))[:2] == denied
    assert refusal(lambda: mine.put_object(Bucket="runs", Key="runs/r2/secret", Body=b"y"))[:2] == denied
    assert refusal(lambda: mine.delete_object(Bucket="runs", Key="runs/r1/beacon"))[:2] == denied
    both = {"Objects": [{"Key": "runs/r1/beacon"}]}
    assert refusal(lambda: mine.delete_objects(Bucket="runs", Delete=both))[:2] == denied
    assert refusal(world.client("ec2", **keys).describe_instances)[0] == "UnauthorizedOperation"
    assert refusal(world.client("iam", **keys).list_roles)[:2] == denied
    assert "assumed-role/node-1/" in world.client("sts", **keys).get_caller_identity()["Arn"]


def test_who_may_not_list_is_not_told_that_a_key_is_missing(world: World) -> None:
    keys = node_role(world, "node-2")
    world.s3.create_bucket(Bucket="runs-2")
    document = json.dumps(NODE_POLICY).replace(":::runs", ":::runs-2")
    world.client("iam").put_role_policy(RoleName="node-2", PolicyName="node", PolicyDocument=document)
    mine = world.client("s3", **keys)
    assert refusal(lambda: mine.get_object(Bucket="runs-2", Key="runs/r1/none"))[:2] == ("AccessDenied", 403)
    may_list = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::runs-2"}
    wider = {"Version": "2012-10-17", "Statement": [may_list]}
    world.client("iam").put_role_policy(RoleName="node-2", PolicyName="list", PolicyDocument=json.dumps(wider))
    assert refusal(lambda: mine.get_object(Bucket="runs-2", Key="runs/r1/none"))[:2] == ("NoSuchKey", 404)


def test_a_role_needs_its_session_token_and_ends_with_it(world: World) -> None:
    keys = node_role(world, "node-3")
    assert (
        refusal(world.client("sts", **(keys | {"aws_session_token": "other"})).get_caller_identity)[0] == "InvalidToken"
    )
    expired = world.cloud._credentials.for_role("node-3", seconds=-1)
    late = {
        "aws_access_key_id": expired["AccessKeyId"],
        "aws_secret_access_key": expired["SecretAccessKey"],
        "aws_session_token": expired["Token"],
    }
    assert refusal(world.client("sts", **late).get_caller_identity)[0] == "ExpiredToken"


def test_there_are_no_credentials_for_a_role_that_is_none(world: World) -> None:
    with pytest.raises(NotFound):
        world.cloud.role_credentials("nobody")


ALLOW = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::b/*"}


@pytest.mark.parametrize(
    ("statements", "action", "context", "decision"),
    [
        ([ALLOW], "s3:GetObject", {}, "allow"),
        ([ALLOW], "S3:getobject", {}, "allow"),
        ([ALLOW], "s3:PutObject", {}, "none"),
        ([ALLOW, ALLOW | {"Effect": "Deny"}], "s3:GetObject", {}, "deny"),
        ([ALLOW | {"Resource": "arn:aws:s3:::other/*"}], "s3:GetObject", {}, "none"),
        ([{"Effect": "Allow", "NotAction": "s3:Get*", "Resource": "*"}], "s3:GetObject", {}, "none"),
        ([{"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:s3:::b/*"}, ALLOW], "s3:GetObject", {}, "allow"),
        ([ALLOW | {"Condition": {"Bool": {"aws:SecureTransport": "true"}}}], "s3:GetObject", {}, "none"),
        (
            [ALLOW | {"Condition": {"Bool": {"aws:SecureTransport": "true"}}}],
            "s3:GetObject",
            {"aws:securetransport": "true"},
            "allow",
        ),
        ([ALLOW | {"Condition": {"DateGreaterThan": {"aws:CurrentTime": "2020"}}}], "s3:GetObject", {}, "none"),
    ],
)
def test_policies_are_read_as_iam_reads_them(
    statements: list[dict[str, Any]], action: str, context: dict[str, str], decision: str
) -> None:
    assert evaluate([{"Statement": statements}], action, "arn:aws:s3:::b/k", context) == decision
