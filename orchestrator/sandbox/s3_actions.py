"""Which S3 operation an HTTP request is, and which permission it needs on which ARN. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.sandbox.wire import Call

# Sub-resources of a bucket: the word in the query, the operation, the permission (both less their verb).
_BUCKET_PARTS = {
    "policy": ("BucketPolicy", "BucketPolicy"),
    "encryption": ("BucketEncryption", "EncryptionConfiguration"),
    "publicAccessBlock": ("PublicAccessBlock", "BucketPublicAccessBlock"),
    "lifecycle": ("BucketLifecycleConfiguration", "LifecycleConfiguration"),
    "tagging": ("BucketTagging", "BucketTagging"),
    "versioning": ("BucketVersioning", "BucketVersioning"),
    "location": ("BucketLocation", "BucketLocation"),
    "ownershipControls": ("BucketOwnershipControls", "BucketOwnershipControls"),
    "acl": ("BucketAcl", "BucketAcl"),
}


@dataclass(frozen=True, slots=True)
class S3Action:
    """An operation by its API name (`PutObject`), the permission it needs, and on what; bucket and key ("" if none)."""

    name: str
    permission: str
    bucket: str
    key: str

    @property
    def arn(self) -> str:
        """The ARN the permission is needed on."""
        if not self.bucket:
            return "*"
        return f"arn:aws:s3:::{self.bucket}/{self.key}" if self.key else f"arn:aws:s3:::{self.bucket}"


def s3_action(call: Call) -> S3Action:
    """Return what `call`, addressed in path style, asks of S3."""
    bucket, _, key = call.path.lstrip("/").partition("/")
    query = call.query
    if not bucket:
        return S3Action("ListBuckets", "s3:ListAllMyBuckets", "", "")
    name, permission = _on_object(call.method, query, call) if key else _on_bucket(call.method, query)
    return S3Action(name, f"s3:{permission}", bucket, key)


def _on_bucket(method: str, query: dict[str, str]) -> tuple[str, str]:
    for word, (operation, permission) in _BUCKET_PARTS.items():
        if word in query:
            verb = {"GET": "Get", "PUT": "Put", "DELETE": "Delete"}.get(method, method.title())
            # Deleting a configuration needs the permission to put it; only policies have one of their own.
            return verb + operation, ("Put" if verb == "Delete" and word != "policy" else verb) + permission
    if method == "POST" and "delete" in query:
        return "DeleteObjects", "DeleteObject"
    if method == "GET" and "uploads" in query:
        return "ListMultipartUploads", "ListBucketMultipartUploads"
    if method == "GET":
        return ("ListObjectsV2" if query.get("list-type") == "2" else "ListObjects"), "ListBucket"
    return {
        "HEAD": ("HeadBucket", "ListBucket"),
        "PUT": ("CreateBucket", "CreateBucket"),
        "DELETE": ("DeleteBucket", "DeleteBucket"),
    }.get(method, (f"{method.title()}Bucket", f"{method.title()}Bucket"))


def _on_object(method: str, query: dict[str, str], call: Call) -> tuple[str, str]:
    if "tagging" in query:
        verb = {"GET": "Get", "PUT": "Put", "DELETE": "Delete"}.get(method, method.title())
        return f"{verb}ObjectTagging", f"{verb}ObjectTagging"
    if "uploadId" in query:
        return {
            "PUT": ("UploadPart", "PutObject"),
            "POST": ("CompleteMultipartUpload", "PutObject"),
            "DELETE": ("AbortMultipartUpload", "AbortMultipartUpload"),
        }.get(method, ("ListParts", "ListMultipartUploadParts"))
    if "uploads" in query:
        return "CreateMultipartUpload", "PutObject"
    if method == "PUT" and call.header("x-amz-copy-source"):
        return "CopyObject", "PutObject"
    return {
        "GET": ("GetObject", "GetObject"),
        "HEAD": ("HeadObject", "GetObject"),
        "PUT": ("PutObject", "PutObject"),
        "DELETE": ("DeleteObject", "DeleteObject"),
    }.get(method, (f"{method.title()}Object", f"{method.title()}Object"))
