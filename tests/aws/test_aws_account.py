from __future__ import annotations

import json

import pytest

from orchestrator.aws import account, policies
from orchestrator.aws.session import Session
from orchestrator.core.settings import Settings
from orchestrator.errors import NoPermission
from tests.aws.aws_wire import Wire

BUCKET = "orch-123456789012-us-east-1"


def test_a_bucket_is_made_closed_encrypted_and_tls_only(session: Session, wire: Wire) -> None:
    assert not account.bucket_exists(session, BUCKET)
    assert wire.forms[wire.calls.index(f"HEAD /{BUCKET}")]["HTTP_X_AMZ_EXPECTED_BUCKET_OWNER"] == "123456789012"
    assert account.ensure_bucket(session, BUCKET)
    assert account.bucket_exists(session, BUCKET)
    client = session.client("s3")
    blocked = client.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert len(blocked) == 4
    assert all(blocked.values())
    rules = client.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    policy = json.loads(client.get_bucket_policy(Bucket=BUCKET)["Policy"])
    assert policy == policies.bucket_policy(BUCKET)
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert "Expiration" not in rule


def test_a_bucket_that_was_set_up_is_left_alone(session: Session, wire: Wire) -> None:
    account.ensure_bucket(session, BUCKET)
    wire.calls.clear()
    assert not account.ensure_bucket(session, BUCKET)
    assert [call for call in wire.calls if call.startswith("PUT")] == []


def test_a_set_up_cut_short_is_completed(session: Session, wire: Wire) -> None:
    wire.fail("PUT /" + BUCKET, "AccessDenied", status=403)
    with pytest.raises(NoPermission):
        account.ensure_bucket(session, BUCKET)
    session.client("s3").create_bucket(Bucket=BUCKET)
    assert not account.ensure_bucket(session, BUCKET)
    assert session.client("s3").get_bucket_policy(Bucket=BUCKET)["Policy"]


def test_rules_and_policy_that_somebody_else_set_stay(session: Session) -> None:
    client = session.client("s3")
    client.create_bucket(Bucket=BUCKET)
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
    client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [theirs]})
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    client.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    account.ensure_bucket(session, BUCKET)
    rules = client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert {rule["ID"] for rule in rules} == {"theirs", account.LIFECYCLE_RULE}
    assert client.get_bucket_policy(Bucket=BUCKET)["Policy"] == policy


def test_a_bucket_of_another_account_is_never_used(session: Session, wire: Wire) -> None:
    wire.fail(f"HEAD /{BUCKET}", "403", status=403)
    with pytest.raises(NoPermission, match="exists but account 123456789012 may not use it"):
        account.ensure_bucket(session, BUCKET)
    assert wire.count(f"PUT /{BUCKET}") == 0


def test_a_bucket_elsewhere_is_made_where_the_nodes_are(wire: Wire) -> None:
    session = Session(Settings("test", "eu-west-1", wire.endpoint, "a", "b"))
    account.ensure_bucket(session, "orch-123456789012-eu-west-1")
    found = session.client("s3").get_bucket_location(Bucket="orch-123456789012-eu-west-1")
    assert found["LocationConstraint"] == "eu-west-1"


def inline(session: Session) -> dict[str, object]:
    client = session.client("iam")
    names = client.list_role_policies(RoleName=account.NODE_ROLE)["PolicyNames"]
    return {
        name: client.get_role_policy(RoleName=account.NODE_ROLE, PolicyName=name)["PolicyDocument"] for name in names
    }


def test_the_node_role_is_made_with_its_profile_and_policies(session: Session) -> None:
    assert not account.node_role_exists(session)
    assert account.ensure_node_role(session, BUCKET, ["datasets"]) == "orch-node"
    assert account.node_role_exists(session)
    assert inline(session) == {
        f"orch-runs-{BUCKET}": policies.node_policy(BUCKET),
        "orch-data-datasets": policies.dataset_policy("datasets"),
    }
    trust = session.client("iam").get_role(RoleName="orch-node")["Role"]["AssumeRolePolicyDocument"]
    assert trust == policies.trust_policy()


def test_another_run_adds_its_data_and_takes_nothing_away(session: Session, wire: Wire) -> None:
    account.ensure_node_role(session, BUCKET, ["first"])
    account.ensure_node_role(session, BUCKET, ["second"])
    assert set(inline(session)) == {f"orch-runs-{BUCKET}", "orch-data-first", "orch-data-second"}
    wire.calls.clear()
    account.ensure_node_role(session, BUCKET, ["first"])
    assert wire.calls == ["GetInstanceProfile", "GetRolePolicy", "GetRolePolicy"]


def test_a_role_without_its_profile_is_completed(session: Session) -> None:
    client = session.client("iam")
    client.create_role(RoleName="orch-node", AssumeRolePolicyDocument=json.dumps(policies.trust_policy()))
    client.create_instance_profile(InstanceProfileName="orch-node")
    assert not account.node_role_exists(session)
    account.ensure_node_role(session, BUCKET)
    assert account.node_role_exists(session)


def test_without_the_permission_the_missing_one_is_named(session: Session, wire: Wire) -> None:
    said = "User: me is not authorized to perform: iam:CreateRole on resource: role orch-node"
    wire.fail("CreateRole", "AccessDenied", status=403, message=said)
    with pytest.raises(NoPermission) as caught:
        account.ensure_node_role(session, BUCKET)
    assert "iam:CreateRole" in caught.value.hint
