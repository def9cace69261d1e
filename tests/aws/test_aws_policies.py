from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.aws.policies import (
    MANAGED_POLICY_CHARACTERS,
    bucket_policy,
    dataset_policy,
    node_policy,
    operator_policy,
)
from orchestrator.core.dataset import manifest_key
from orchestrator.core.ids import Keys, bundle_key
from orchestrator.core.parts import PartKeys

BUCKET = "orch-123456789012-us-east-1"
RUN = Keys("imagenet18-20261120-203601-ab12")
NODE = "i-0123456789abcdef0"
OPERATOR = operator_policy("123456789012", "us-east-1", BUCKET, ["datasets"])
PERMISSION = re.compile(r'"((?:ec2|ec2-instance-connect|iam|pricing|s3|servicequotas|ssm|sts):[A-Z]\w+)"')
INLINE_POLICIES_CHARACTERS = 10_240


def allows(policy: dict[str, Any], action: str, resource: str) -> bool:
    return any(
        any(fnmatchcase(action, wanted) for wanted in statement["Action"])
        and any(fnmatchcase(resource, wanted) for wanted in statement["Resource"])
        for statement in policy["Statement"]
    )


def allows_somewhere(policy: dict[str, Any], action: str) -> bool:
    return any(fnmatchcase(action, wanted) for statement in policy["Statement"] for wanted in statement["Action"])


def in_bucket(key: str) -> str:
    return f"arn:aws:s3:::{BUCKET}/{key}"


def test_a_node_writes_what_it_has_to_say() -> None:
    said = (RUN.host_key(NODE), RUN.boot_failure(NODE), RUN.beacon(NODE), RUN.manifest(5), RUN.log(0, "run.log"))
    for key in (*said, RUN.metrics, PartKeys(RUN.run).joined):
        assert allows(node_policy(BUCKET), "s3:PutObject", in_bucket(key)), key


def test_a_node_cannot_touch_what_the_scheduler_writes() -> None:
    for key in (RUN.spec, RUN.lease, RUN.entry(1), RUN.prices, RUN.report, bundle_key("ab")):
        assert not allows(node_policy(BUCKET), "s3:PutObject", in_bucket(key)), key
        assert not allows(node_policy(BUCKET), "s3:DeleteObject", in_bucket(key)), key


def test_a_node_reads_its_code_and_its_data() -> None:
    assert allows(node_policy(BUCKET), "s3:GetObject", in_bucket(bundle_key("ab")))
    assert allows(node_policy(BUCKET), "s3:GetObject", in_bucket(RUN.manifest(5)))
    assert allows(node_policy(BUCKET), "s3:GetObject", in_bucket(manifest_key("imagenet", "0123456789abcdef")))
    assert not allows(node_policy(BUCKET), "s3:PutObject", in_bucket(manifest_key("imagenet", "0123456789abcdef")))
    assert allows(dataset_policy("datasets"), "s3:GetObject", "arn:aws:s3:::datasets/imagenet/0.tar")
    assert not allows(dataset_policy("datasets"), "s3:PutObject", "arn:aws:s3:::datasets/imagenet/0.tar")


def test_the_operator_goes_on_with_uploads_in_parts() -> None:
    assert allows(OPERATOR, "s3:ListBucketMultipartUploads", f"arn:aws:s3:::{BUCKET}")
    for action in ("s3:ListMultipartUploadParts", "s3:AbortMultipartUpload", "s3:PutObject"):
        assert allows(OPERATOR, action, in_bucket("datasets/imagenet/0123456789abcdef/train/images.bin"))


def test_the_operator_reads_data_in_other_buckets_that_are_named_and_writes_none() -> None:
    plain = operator_policy("123456789012", "us-east-1", BUCKET)
    assert [item["Sid"] for item in plain["Statement"] if "datasets" in json.dumps(item["Resource"])] == []
    for action, resource in (("s3:ListBucket", ""), ("s3:GetObject", "/imagenet/0.tar")):
        assert allows(OPERATOR, action, f"arn:aws:s3:::datasets{resource}")
        assert not allows(plain, action, f"arn:aws:s3:::datasets{resource}")
    for action in ("s3:PutObject", "s3:DeleteObject"):
        assert not allows(OPERATOR, action, "arn:aws:s3:::datasets/imagenet/0.tar")


def test_without_what_the_first_use_needs_the_operator_may_still_launch() -> None:
    later = {"Statement": [item for item in OPERATOR["Statement"] if item["Sid"] != "FirstUse"]}
    for action in ("s3:ListBucket", "s3:GetLifecycleConfiguration"):
        assert allows(later, action, f"arn:aws:s3:::{BUCKET}"), action
    assert allows(later, "iam:GetInstanceProfile", "arn:aws:iam::123456789012:instance-profile/orch-node")
    assert allows(later, "iam:GetRolePolicy", "arn:aws:iam::123456789012:role/orch-node")
    assert not allows(later, "iam:PutRolePolicy", "arn:aws:iam::123456789012:role/orch-node")


def test_whatever_the_code_asks_aws_for_the_operator_may() -> None:
    """Every permission that a call names, for whoever is denied it, stands in the policy."""
    every = Path(orchestrator.__file__).parent.rglob("*.py")
    code = [file for file in every if "sandbox" not in file.parts and file.name != "policies.py"]
    named = {name for file in code for name in PERMISSION.findall(file.read_text())}
    assert {"ec2:RunInstances", "s3:AbortMultipartUpload", "iam:GetRolePolicy", "ssm:GetParameter"} <= named
    named.remove("sts:GetCallerIdentity")  # whoever has keys may (IAM user guide)
    missing = {name for name in named if not allows_somewhere(OPERATOR, name)}
    assert missing == set()


def test_a_node_has_no_rights_outside_s3() -> None:
    for policy in (node_policy(BUCKET), dataset_policy("datasets")):
        actions = [action for statement in policy["Statement"] for action in statement["Action"]]
        assert all(action.startswith("s3:") and "*" not in action for action in actions)


def test_whatever_the_operator_changes_in_ec2_is_bound_to_the_tag_of_runs() -> None:
    free = {"LaunchFrom", "CreateInVpc", "TagAtCreation"}
    for statement in OPERATOR["Statement"]:
        changes = [a for a in statement["Action"] if a.startswith("ec2:") and not a.startswith("ec2:Describe")]
        if changes and statement["Sid"] not in free:
            assert "orch:run" in json.dumps(statement["Condition"]), statement["Sid"]
    terminating = [s for s in OPERATOR["Statement"] if "ec2:TerminateInstances" in s["Action"]]
    assert [s["Sid"] for s in terminating] == ["ChangeTagged"]
    tagging = next(s for s in OPERATOR["Statement"] if s["Sid"] == "TagAtCreation")
    assert tagging["Condition"]["StringEquals"]["ec2:CreateAction"]


def test_keys_are_pushed_to_machines_of_runs_and_for_one_user_only() -> None:
    action, machine = "ec2-instance-connect:SendSSHPublicKey", "arn:aws:ec2:us-east-1:123456789012:instance/i-1"
    (pushing,) = (s for s in OPERATOR["Statement"] if action in s["Action"])
    assert allows(OPERATOR, action, machine)
    assert pushing["Condition"]["Null"] == {"aws:ResourceTag/orch:run": "false"}
    assert pushing["Condition"]["StringEquals"] == {"ec2:osuser": "ubuntu"}
    other = operator_policy("123456789012", "us-east-1", BUCKET, ssh_user="ec2-user")
    assert {"ec2:osuser": "ec2-user"} in [s.get("Condition", {}).get("StringEquals") for s in other["Statement"]]


def test_snapshots_are_taken_of_volumes_of_runs_and_carry_their_tag() -> None:
    taking = {s["Sid"]: s for s in OPERATOR["Statement"] if "ec2:CreateSnapshot" in s["Action"]}
    (of,) = (s for s in taking.values() if any("volume/" in resource for resource in s["Resource"]))
    assert of["Condition"] == {"Null": {"aws:ResourceTag/orch:run": "false"}}
    assert allows(OPERATOR, "ec2:CreateSnapshot", "arn:aws:ec2:us-east-1::snapshot/snap-1")
    tagging = next(s for s in OPERATOR["Statement"] if s["Sid"] == "TagAtCreation")
    assert "CreateSnapshot" in tagging["Condition"]["StringEquals"]["ec2:CreateAction"]


def test_the_operator_may_hand_on_one_role_only() -> None:
    passing = [s for s in OPERATOR["Statement"] if "iam:PassRole" in s["Action"]]
    assert [s["Resource"] for s in passing] == [["arn:aws:iam::123456789012:role/orch-node"]]


def test_no_statement_allows_everything() -> None:
    for statement in OPERATOR["Statement"]:
        assert "*" not in statement["Action"]
        if "*" in statement["Resource"]:
            assert statement["Sid"] == "Read"


def test_the_policies_fit_what_iam_takes() -> None:
    assert len(json.dumps(OPERATOR, separators=(",", ":"))) <= MANAGED_POLICY_CHARACTERS
    data = [dataset_policy("d" * 63) for _ in range(10)]
    total = sum(len(json.dumps(p, separators=(",", ":"))) for p in [node_policy("b" * 63), *data])
    assert total <= INLINE_POLICIES_CHARACTERS


def test_the_bucket_takes_nothing_without_tls() -> None:
    (statement,) = bucket_policy(BUCKET)["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert in_bucket("*") in statement["Resource"]
