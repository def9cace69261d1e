"""What an account needs once: the bucket of its runs and the role of its nodes. Made on first use, kept between runs.

Every step is idempotent and the last one marks the whole as done, so that a set-up cut short is completed next time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from orchestrator.aws import policies
from orchestrator.aws.errors import call, error_code, kind_of
from orchestrator.aws.session import Session
from orchestrator.errors import NoPermission, NotFound, OrchError, Unreachable

NODE_ROLE = policies.NODE_ROLE
LIFECYCLE_RULE = "orch-abort-incomplete-uploads"
ABORT_DAYS = 1
PROFILE_SECONDS = 30.0
# The region that may not be named when a bucket is made in it.
UNNAMED_REGION = "us-east-1"


def bucket_exists(session: Session, name: str) -> bool:
    """Tell whether the bucket exists and is the caller's. Raises NoPermission where it is somebody else's, Unreachable.

    Bucket names are global and ours can be guessed: one that another account made first must never be used.
    """
    client = session.client("s3")
    owner = session.account()
    try:
        call("s3:ListBucket", lambda: client.head_bucket(Bucket=name, ExpectedBucketOwner=owner))
    except NotFound:
        return False
    except NoPermission as error:
        raise NoPermission(
            f"the bucket {name} exists but account {owner} may not use it",
            "it belongs to another account, or s3:ListBucket is missing; `orch doctor --policy` prints a policy",
        ) from error
    return True


def ensure_bucket(session: Session, name: str) -> bool:
    """Make and set up the bucket unless that was done; tell whether it was created.

    Public access blocked, encrypted, TLS only, uploads that were left incomplete aborted after a day; a policy or rules
    that somebody else set stay. Raises NoPermission, BadInput (a name S3 does not take), Unreachable.
    """
    client = session.client("s3")
    created = not bucket_exists(session, name)
    if created:
        request: dict[str, Any] = {"Bucket": name}
        if session.region != UNNAMED_REGION:
            request["CreateBucketConfiguration"] = {"LocationConstraint": session.region}
        _unless_there("s3:CreateBucket", lambda: client.create_bucket(**request))
    rules = _lifecycle_rules(client, name)
    if any(rule.get("ID") == LIFECYCLE_RULE for rule in rules):
        return created
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    call(
        "s3:PutBucketPublicAccessBlock",
        lambda: client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block),
    )
    encrypted = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    call(
        "s3:PutEncryptionConfiguration",
        lambda: client.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=encrypted),
    )
    policy = json.dumps(policies.bucket_policy(name))
    if not _found("s3:GetBucketPolicy", lambda: client.get_bucket_policy(Bucket=name), "NoSuchBucketPolicy"):
        call("s3:PutBucketPolicy", lambda: client.put_bucket_policy(Bucket=name, Policy=policy))
    ours = {
        "ID": LIFECYCLE_RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_DAYS},
    }
    # Last, since its presence says that all of it was done.
    call(
        "s3:PutLifecycleConfiguration",
        lambda: client.put_bucket_lifecycle_configuration(
            Bucket=name, LifecycleConfiguration={"Rules": [*rules, ours]}
        ),
    )
    return created


def _lifecycle_rules(client: Any, name: str) -> list[dict[str, Any]]:
    reply = _found(
        "s3:GetLifecycleConfiguration",
        lambda: client.get_bucket_lifecycle_configuration(Bucket=name),
        "NoSuchLifecycleConfiguration",
    )
    return list(reply.get("Rules", []))


def _found(action: str, send: Callable[[], Any], absent: str) -> dict[str, Any]:
    """Return the reply, an empty one where the code `absent` says that nothing was ever set."""
    try:
        reply: dict[str, Any] = call(action, send)
    except OrchError as error:
        if error_code(error.__cause__ or error) != absent:
            raise
        return {}
    return reply


def node_role_exists(session: Session) -> bool:
    """Tell whether the nodes' instance profile is there with its role in it. Raises NoPermission, Unreachable."""
    client = session.client("iam")
    try:
        reply = call("iam:GetInstanceProfile", lambda: client.get_instance_profile(InstanceProfileName=NODE_ROLE))
    except NotFound:
        return False
    return bool(reply["InstanceProfile"]["Roles"])


def ensure_node_role(session: Session, bucket: str, dataset_buckets: Iterable[str] = ()) -> str:
    """Return the name of the nodes' instance profile, made if need be, with access to these buckets.

    Access is only ever added, one inline policy a bucket: other runs use the same role at the same time. Raises
    NoPermission, Unreachable (also when IAM does not show the profile in time).
    """
    client = session.client("iam")
    if not node_role_exists(session):
        _make_role(client)
        _await_profile(session)
    wanted = {f"orch-runs-{bucket}": policies.node_policy(bucket)}
    wanted |= {policies.data_policy_name(name): policies.dataset_policy(name) for name in dataset_buckets}
    for name, document in wanted.items():
        body = json.dumps(document)
        if _role_policy(client, name) != document:
            call(
                "iam:PutRolePolicy",
                partial(client.put_role_policy, RoleName=NODE_ROLE, PolicyName=name, PolicyDocument=body),
            )
    return NODE_ROLE


def _make_role(client: Any) -> None:
    trust = json.dumps(policies.trust_policy())
    _unless_there(
        "iam:CreateRole",
        lambda: client.create_role(
            RoleName=NODE_ROLE, AssumeRolePolicyDocument=trust, Description="what the nodes of orch may do"
        ),
    )
    _unless_there("iam:CreateInstanceProfile", lambda: client.create_instance_profile(InstanceProfileName=NODE_ROLE))
    # A profile holds one role: LimitExceeded means that ours is in it already.
    _unless_there(
        "iam:AddRoleToInstanceProfile",
        lambda: client.add_role_to_instance_profile(InstanceProfileName=NODE_ROLE, RoleName=NODE_ROLE),
        "LimitExceeded",
    )


def _await_profile(session: Session) -> None:
    """Wait until IAM shows the profile whole; EC2 may still learn of it later, which `run_instances` waits for."""
    deadline = time.monotonic() + PROFILE_SECONDS
    while not node_role_exists(session):
        if time.monotonic() > deadline:
            raise Unreachable(f"IAM does not show the new instance profile {NODE_ROLE} yet", "try again in a minute")
        time.sleep(1.0)


def _role_policy(client: Any, name: str) -> dict[str, Any] | None:
    try:
        reply = call("iam:GetRolePolicy", lambda: client.get_role_policy(RoleName=NODE_ROLE, PolicyName=name))
    except NotFound:
        return None
    document: dict[str, Any] = reply["PolicyDocument"]
    return document


def _unless_there(action: str, send: Callable[[], Any], also: str = "") -> None:
    try:
        call(action, send)
    except OrchError as error:
        cause = error.__cause__ or error
        if kind_of(cause) != "duplicate" and error_code(cause) != (also or None):
            raise
