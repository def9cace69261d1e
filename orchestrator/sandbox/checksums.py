"""Checking an upload against the checksums that came with it, as S3 does and moto does not. Pure."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable

from orchestrator.sandbox.wire import Call, Refused

_DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "x-amz-checksum-sha1": lambda body: hashlib.sha1(body, usedforsecurity=False).digest(),
    "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
    "content-md5": lambda body: hashlib.md5(body, usedforsecurity=False).digest(),
}
_UPLOADS = frozenset({"PutObject", "UploadPart"})


def check_upload(call: Call, operation: str) -> None:
    """Raise Refused (BadDigest) where an upload's body is not the one its checksum headers were made of."""
    if operation not in _UPLOADS:
        return
    for name, digest in _DIGESTS.items():
        stated = call.header(name)
        if stated and base64.b64encode(digest(call.body)).decode() != stated:
            algorithm = name.rpartition("-")[2].upper()
            raise Refused("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
