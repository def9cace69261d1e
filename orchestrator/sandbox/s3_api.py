"""S3 of the sandbox: moto's, with reads by seeking, quick listings and policies that are obeyed.

Every request is carried out under one lock, which makes conditional writes atomic; bodies are received before and sent
after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import unescape
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from moto.core.common_types import TYPE_RESPONSE
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket, FakeKey, s3_backends
from moto.s3.responses import S3Response

from orchestrator.sandbox import policies
from orchestrator.sandbox.credentials import ACCOUNT
from orchestrator.sandbox.s3_actions import S3Action
from orchestrator.sandbox.s3_ranges import SeekableKey
from orchestrator.sandbox.wire import XML, Call, Refused

_KEY = re.compile(r"<Key>(.*?)</Key>", re.DOTALL)
# Loopback counts as a secure transport: policies that demand TLS are for AWS.
SECURE = {"aws:securetransport": "true"}
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_PAGE = 1000
_RANGES_ABOVE = 5 * 2**20


class SandboxS3(S3Response):
    """Answers one S3 request, addressed in path style."""

    def _get_key(self, validate_storage_class: bool = True) -> tuple[FakeKey, bool]:
        """Return the object asked for, with a value that is not read until it is sent."""
        key, not_modified = super()._get_key(validate_storage_class)
        return SeekableKey(key), not_modified  # type: ignore[return-value]

    def list_objects_v2(self) -> TYPE_RESPONSE:
        """ListObjectsV2; moto's own takes seconds for thousands of keys."""
        bucket = self.backend.head_bucket(self.bucket_name)
        query = {name: str(values[0]) for name, values in self.querystring.items()}
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        size = min(int(query.get("max-keys") or _PAGE), _PAGE)
        rows, last, more = _page(bucket, prefix, delimiter, after, size)
        encode = quote if query.get("encoding-type") == "url" else escape
        fields: dict[str, str] = {
            "Name": escape(self.bucket_name),
            "Prefix": encode(prefix),
            "Delimiter": encode(delimiter) if delimiter else "",
            "MaxKeys": str(size),
            "EncodingType": query.get("encoding-type", ""),
            "StartAfter": encode(query.get("start-after", "")),
            "ContinuationToken": escape(query.get("continuation-token", "")),
            "NextContinuationToken": escape(last) if more else "",
        }
        text = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items() if value or name == "Prefix")
        text += f"<KeyCount>{len(rows)}</KeyCount><IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        text += "".join(_row(name, key, encode) for name, key in rows)
        return 200, {"content-type": "application/xml"}, (
            f'{XML}<ListBucketResult xmlns="{_NAMESPACE}">{text}</ListBucketResult>'
        )  # fmt: skip


def _page(
    bucket: FakeBucket, prefix: str, delimiter: str, after: str, size: int
) -> tuple[list[tuple[str, FakeKey | None]], str, bool]:
    """Return a page of keys and common prefixes (those with None), its last name, and whether there is more."""
    rows: list[tuple[str, FakeKey | None]] = []
    last = after
    for name in sorted(key for key in bucket.keys if key.startswith(prefix)):
        key = bucket.keys[name]
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        shown = name if cut < 0 else name[: cut + len(delimiter)]
        # A common prefix that was the last of a page covers everything below it.
        if shown <= after or not isinstance(key, FakeKey) or (rows and rows[-1][0] == shown):
            continue
        if len(rows) == size:
            return rows, last, True
        rows.append((shown, key if cut < 0 else None))
        last = shown
    return rows, last, False


def _row(name: str, key: FakeKey | None, encode: Any) -> str:
    if key is None:
        return f"<CommonPrefixes><Prefix>{encode(name)}</Prefix></CommonPrefixes>"
    return (
        f"<Contents><Key>{encode(name)}</Key><LastModified>{key.last_modified_ISO8601}</LastModified>"
        f"<ETag>{escape(key.etag)}</ETag><Size>{key.size}</Size><StorageClass>{key.storage_class}</StorageClass></Contents>"
    )


def dispatch(request: Any, action: S3Action) -> TYPE_RESPONSE:
    """Carry out a request by moto's `Request`, addressed in path style."""
    if action.key:
        return SandboxS3.key_dispatch(request, request.raw_url, request.headers)
    return SandboxS3.bucket_dispatch(request, request.raw_url, request.headers)


def check_pending_upload(action: S3Action, call: Call) -> None:
    """Raise Refused for an upload in parts that is not there (any more), which moto's own UploadPart breaks on."""
    wanted = call.query.get("uploadId")
    there = s3_backends[ACCOUNT]["aws"].buckets.get(action.bucket)
    if wanted and there is not None and wanted not in there.multiparts:
        message = "The upload ID may be invalid, or the upload may have been aborted or completed."
        raise Refused("NoSuchUpload", f"The specified upload does not exist. {message}")


def check_copied_range(call: Call) -> None:
    """Raise Refused for a range of an object that is too small to copy one of (API reference of UploadPartCopy)."""
    if not call.header("x-amz-copy-source-range"):
        return
    bucket, _, key = unquote(call.header("x-amz-copy-source")).partition("?")[0].lstrip("/").partition("/")
    there = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    found = there.keys.get(key) if there is not None else None
    if isinstance(found, FakeKey) and found.size <= _RANGES_ABOVE:
        message = "The specified copy source is not supported as a byte-range copy source"
        raise Refused("InvalidRequest", message)


def check_bucket_policy(action: S3Action, call: Call) -> None:
    """Raise Refused where the bucket's own policy denies the action (whoever asks)."""
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(action.bucket)
    if bucket is None or bucket.policy is None:
        return
    document: Mapping[str, Any] = json.loads(bucket.policy)
    if policies.evaluate([document], action.permission, action.arn, context(action, call)) == "deny":
        raise Refused("AccessDenied", f"Access Denied: the bucket's policy denies {action.permission} on {action.arn}")


def context(action: S3Action, call: Call) -> dict[str, str]:
    """Return the condition values of a request."""
    found = dict(SECURE)
    if action.permission == "s3:ListBucket" and action.name.startswith("List"):
        found["s3:prefix"] = call.query.get("prefix", "")
    return found


def resources(action: S3Action, call: Call) -> list[str]:
    """Return every ARN a call needs its permission on: one, but for DeleteObjects."""
    if action.name != "DeleteObjects":
        return [action.arn]
    return [f"{action.arn}/{unescape(name)}" for name in _KEY.findall(call.body.decode(errors="replace"))]


def _permission_not_judged_here(self: FakeBucket, action: str, resource: str) -> PermissionResult:
    """Stand in for moto's reading of bucket policies, which takes every condition for a denial."""
    return PermissionResult.NEUTRAL


def install() -> None:
    """Take over the reading of bucket policies (`check_bucket_policy` does it); doing it again changes nothing."""
    FakeBucket.get_permission = _permission_not_judged_here  # type: ignore[method-assign]
