"""The IAM policies of whoever runs `orch` and of its nodes, as documents. Pure; `orch doctor --policy` prints them.

Least privilege: what changes EC2 is bound to the tag that every resource of a run carries from its creation on; a node
may write what a node has to say, and has no EC2 rights at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.ids import TAG_RUN

NODE_ROLE = "orch-node"
VERSION = "2012-10-17"
# What IAM takes as one managed policy, white space not counted.
MANAGED_POLICY_CHARACTERS = 6144
Policy = dict[str, Any]

# All a node ever writes under `runs/<run-id>/`; never the spec, the lease or the ledger.
NODE_WRITES = ("nodes/*", "checkpoints/*", "logs/*", "parts/*", "metrics.jsonl")
_TAGGED_REQUEST = {"Null": {f"aws:RequestTag/{TAG_RUN}": "false"}}
_TAGGED_RESOURCE = {"Null": {f"aws:ResourceTag/{TAG_RUN}": "false"}}


def node_policy(bucket: str) -> Policy:
    """Return what a node may do in the bucket of the runs."""
    runs = f"arn:aws:s3:::{bucket}/runs/*"
    return _policy(
        _allow(
            "ReadRunsBundlesData",
            ["s3:GetObject"],
            [runs, *(f"arn:aws:s3:::{bucket}/{name}/*" for name in ("bundles", "datasets"))],
        ),
        _allow(
            "WriteWhatANodeSays",
            ["s3:PutObject", "s3:AbortMultipartUpload"],
            [f"{runs}/{name}" for name in NODE_WRITES],
        ),
        _allow("PruneCheckpoints", ["s3:DeleteObject"], [f"{runs}/checkpoints/*"]),
        # Without a condition on the prefix: else S3 answers "denied" for an object that is not there, and a node could
        # not tell a first checkpoint or metrics file from one it may not read.
        _allow("List", ["s3:ListBucket"], [f"arn:aws:s3:::{bucket}"]),
    )


def data_policy_name(bucket: str) -> str:
    """Return what the nodes' right to read a bucket of data is called, as an inline policy of their role."""
    return f"orch-data-{bucket}"


def dataset_policy(bucket: str) -> Policy:
    """Return what a node may do in the bucket of a data set: read it."""
    return _policy(
        _allow("ReadData", ["s3:GetObject"], [f"arn:aws:s3:::{bucket}/*"]),
        _allow("ListData", ["s3:ListBucket"], [f"arn:aws:s3:::{bucket}"]),
    )


def trust_policy() -> Policy:
    """Return who may take the node role: EC2, on behalf of an instance."""
    statement = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {"Version": VERSION, "Statement": [statement]}


def bucket_policy(bucket: str) -> Policy:
    """Return the bucket's own policy: nothing without TLS."""
    return {
        "Version": VERSION,
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def operator_policy(
    account: str, region: str, bucket: str, datasets: Sequence[str] = (), ssh_user: str = "ubuntu"
) -> Policy:
    """Return what `orch` needs for its user. The statement `FirstUse` may be dropped once bucket and role exist; it
    is needed again (`iam:PutRolePolicy`) for data in another bucket, and where a newer `orch` gives nodes other rights.

    `datasets` are other buckets, whose data experiments name and `orch dataset build` reads. `ssh_user` is who a
    machine that did not launch a run may log in as on its nodes.
    """
    ec2 = f"arn:aws:ec2:{region}:{account}"
    role = f"arn:aws:iam::{account}:role/{NODE_ROLE}"
    profile = f"arn:aws:iam::{account}:instance-profile/{NODE_ROLE}"
    made = [f"{ec2}:{kind}/*" for kind in ("instance", "volume", "network-interface", "spot-instances-request")]
    own = [f"{ec2}:{kind}/*" for kind in ("security-group", "placement-group", "key-pair")]
    given = [f"arn:aws:ec2:{region}::image/*", f"{ec2}:image/*", f"{ec2}:subnet/*", "arn:aws:ec2:*::snapshot/*"]
    creations = ["RunInstances", "CreateSecurityGroup", "CreatePlacementGroup", "ImportKeyPair"]
    pictured = ["CreateImage", "CreateSnapshot"]
    # The names of images and snapshots have no account in them.
    pictures = [f"arn:aws:ec2:{region}::{kind}/*" for kind in ("image", "snapshot")]
    buckets = [bucket, *datasets]
    return _policy(
        _allow(
            "Read",
            ["ec2:Describe*", "pricing:GetProducts", "servicequotas:GetServiceQuota", "ssm:GetParameter"],
            ["*"],
        ),
        _allow("LaunchTagged", ["ec2:RunInstances"], made, _TAGGED_REQUEST),
        _allow("LaunchWithOwn", ["ec2:RunInstances"], own, _TAGGED_RESOURCE),
        _allow("LaunchFrom", ["ec2:RunInstances"], given),
        _allow("CreateTagged", [f"ec2:{name}" for name in creations[1:]], own, _TAGGED_REQUEST),
        _allow("CreateImageOfOwn", ["ec2:CreateImage"], [f"{ec2}:instance/*"], _TAGGED_RESOURCE),
        _allow("CreateSnapshotOfOwn", ["ec2:CreateSnapshot"], [f"{ec2}:volume/*"], _TAGGED_RESOURCE),
        _allow("CreateImageTagged", [f"ec2:{name}" for name in pictured], pictures, _TAGGED_REQUEST),
        _allow("PublishImage", ["ec2:CreateTags"], pictures, _TAGGED_RESOURCE),
        _allow("CreateInVpc", ["ec2:CreateSecurityGroup"], [f"{ec2}:vpc/*"]),
        _allow(
            "TagAtCreation",
            ["ec2:CreateTags"],
            [f"{ec2}:*/*", *pictures],
            {"StringEquals": {"ec2:CreateAction": creations + pictured}},
        ),
        _allow(
            "ChangeTagged",
            [
                "ec2:TerminateInstances",
                "ec2:CancelSpotInstanceRequests",
                "ec2:AuthorizeSecurityGroupIngress",
                "ec2:AuthorizeSecurityGroupEgress",
                "ec2:RevokeSecurityGroupIngress",
                "ec2:DeleteSecurityGroup",
                "ec2:DeletePlacementGroup",
                "ec2:DeleteKeyPair",
                "ec2:DeleteVolume",
                "ec2:DeleteSnapshot",
                "ec2:DeregisterImage",
                "ec2:DeleteNetworkInterface",
            ],
            [f"{ec2}:*/*", *pictures],
            _TAGGED_RESOURCE,
        ),
        _allow(
            "PushKeyToOwn",
            ["ec2-instance-connect:SendSSHPublicKey"],
            [f"{ec2}:instance/*"],
            {**_TAGGED_RESOURCE, "StringEquals": {"ec2:osuser": ssh_user}},
        ),
        _allow(
            "PassNodeRole", ["iam:PassRole"], [role], {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
        ),
        _allow(
            "SpotRole",
            ["iam:CreateServiceLinkedRole"],
            ["arn:aws:iam::*:role/aws-service-role/spot.amazonaws.com/*"],
            {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}},
        ),
        _allow(
            "RunsInS3",
            [
                "s3:GetObject",
                "s3:PutObject",
                "s3:DeleteObject",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            [f"arn:aws:s3:::{bucket}/*"],
        ),
        # Every launch looks at the bucket's rules and at the role's policies, whether both are as they should be.
        _allow(
            "SeeBucket", ["s3:ListBucketMultipartUploads", "s3:GetLifecycleConfiguration"], [f"arn:aws:s3:::{bucket}"]
        ),
        _allow("ListS3", ["s3:ListBucket"], [f"arn:aws:s3:::{name}" for name in buckets]),
        *([_allow("ReadData", ["s3:GetObject"], [f"arn:aws:s3:::{name}/*" for name in datasets])] if datasets else []),
        _allow("SeeNodeRole", ["iam:GetInstanceProfile", "iam:GetRolePolicy"], [role, profile]),
        _allow(
            "FirstUse",
            [
                "s3:CreateBucket",
                "s3:GetBucketPolicy",
                "s3:PutBucketPolicy",
                "s3:PutBucketPublicAccessBlock",
                "s3:PutEncryptionConfiguration",
                "s3:PutLifecycleConfiguration",
                "iam:CreateRole",
                "iam:PutRolePolicy",
                "iam:CreateInstanceProfile",
                "iam:AddRoleToInstanceProfile",
            ],
            [f"arn:aws:s3:::{bucket}", role, profile],
        ),
    )


def _policy(*statements: Mapping[str, Any]) -> Policy:
    return {"Version": VERSION, "Statement": list(statements)}


def _allow(
    sid: str, actions: Sequence[str], resources: Sequence[str], condition: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return statement if condition is None else {**statement, "Condition": dict(condition)}
