"""Checking of AWS Signature Version 4, in headers and in presigned URLs: who signed a call, and whether truly so.

A wrong signature is refused as AWS refuses it, so that a signer that works here works there. Pure but for the clock
handed in; the signatures of single chunks of a streamed body are not checked.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

from orchestrator.sandbox.wire import Call, Refused

ALGORITHM = "AWS4-HMAC-SHA256"
STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a call says of its signature, not yet believed."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    stamp: str
    token: str
    presigned: bool
    expires: int = 0


def read_claim(call: Call) -> Claim:
    """Return who `call` says it is from. Raises Refused where it is not signed, or in a form that is none."""
    try:
        if call.header("authorization"):
            return _from_header(call)
        query = call.query
        if "X-Amz-Signature" in query:
            return _from_query(query)
    except (KeyError, ValueError):
        raise Refused("AuthFailure", "the signature of this request cannot be read") from None
    raise Refused("MissingAuthenticationToken", "this request is not signed; `orch sandbox env` prints what signs it")


def _from_header(call: Call) -> Claim:
    algorithm, _, rest = call.header("authorization").partition(" ")
    if algorithm != ALGORITHM:
        raise ValueError(algorithm)
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    access_key, date, region, service, _ = parts["Credential"].split("/")
    signed = tuple(parts["SignedHeaders"].split(";"))
    stamp, token = call.header("x-amz-date"), call.header("x-amz-security-token")
    return Claim(access_key, date, region, service, signed, parts["Signature"], stamp, token, presigned=False)


def _from_query(query: dict[str, str]) -> Claim:
    access_key, date, region, service, _ = query["X-Amz-Credential"].split("/")
    signed = tuple(query["X-Amz-SignedHeaders"].split(";"))
    expires = int(query.get("X-Amz-Expires", "3600"))
    token, stamp = query.get("X-Amz-Security-Token", ""), query["X-Amz-Date"]
    return Claim(access_key, date, region, service, signed, query["X-Amz-Signature"], stamp, token, True, expires)


def verify(call: Call, claim: Claim, secret: str, now: datetime) -> None:
    """Raise Refused (SignatureDoesNotMatch, AccessDenied) unless `claim` was signed with `secret` and is in time."""
    if claim.presigned:
        end = datetime.strptime(claim.stamp, STAMP).replace(tzinfo=UTC) + timedelta(seconds=claim.expires)
        if now > end:
            raise Refused("AccessDenied", "Request has expired")
    scope = f"{claim.date}/{claim.region}/{claim.service}/aws4_request"
    digest = hashlib.sha256(_canonical(call, claim).encode()).hexdigest()
    text = f"{ALGORITHM}\n{claim.stamp}\n{scope}\n{digest}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), claim.signature):
        message = "The request signature we calculated does not match the signature you provided."
        raise Refused("SignatureDoesNotMatch", f"{message} (the sandbox checks signatures as AWS does)")


def _canonical(call: Call, claim: Claim) -> str:
    """Return the canonical request that must have been signed."""
    # S3 signs the path as it is sent; every other service signs it encoded once more.
    path = call.raw_path if claim.service == "s3" else quote(call.raw_path, safe="/-_.~")
    pairs = [
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(call.query_string, keep_blank_values=True)
        if not (claim.presigned and name == "X-Amz-Signature")
    ]
    query = "&".join(f"{name}={value}" for name, value in sorted(pairs))
    headers = "".join(f"{name}:{' '.join(call.header(name).split())}\n" for name in claim.signed_headers)
    return "\n".join((call.method, path or "/", query, headers, ";".join(claim.signed_headers), _payload(call, claim)))


def _payload(call: Call, claim: Claim) -> str:
    """Return the hash of the body that the signature covers, as the signer gave it where it is free to choose."""
    stated = call.header("x-amz-content-sha256")
    if claim.presigned:
        return stated or ("UNSIGNED-PAYLOAD" if claim.service == "s3" else hashlib.sha256(call.body).hexdigest())
    if stated.startswith(("STREAMING-", "UNSIGNED-")):
        return stated
    actual = hashlib.sha256(call.body).hexdigest()
    if stated and stated != actual:
        raise Refused(
            "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was sent."
        )
    return actual
