"""Taking the `aws-chunked` framing off an upload, so that S3 stores what was meant. Pure.

Moto can do it too, but in quadratic time.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.sandbox.wire import Call, Refused

STREAMING = "STREAMING-"


def unframe(call: Call) -> Call:
    """Return `call` with a plain body, and the checksum of its trailer as a header, if it was framed at all.

    Raises Refused (IncompleteBody) where the framing is broken or the length is not the one announced.
    """
    if not call.header("x-amz-content-sha256").startswith(STREAMING):
        return call
    try:
        body, trailer = _read(call.body)
        if len(body) != int(call.header("x-amz-decoded-content-length") or len(body)):
            raise ValueError("length")
    except ValueError:
        raise Refused("IncompleteBody", "The request body terminated unexpectedly") from None
    encodings = [e.strip() for e in call.header("content-encoding").split(",") if e.strip() not in {"", "aws-chunked"}]
    dropped = {"content-encoding", "x-amz-decoded-content-length", "x-amz-trailer", "transfer-encoding"}
    headers = {name: value for name, value in call.headers.items() if name not in dropped}
    headers |= {"x-amz-content-sha256": "UNSIGNED-PAYLOAD", "content-length": str(len(body)), **trailer}
    if encodings:
        headers["content-encoding"] = ",".join(encodings)
    return replace(call, headers=headers, body=body)


def _read(framed: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body and the trailing headers. Raises ValueError."""
    parts: list[memoryview] = []
    view, position = memoryview(framed), 0
    while True:
        end = framed.index(b"\r\n", position)
        size = int(framed[position:end].partition(b";")[0], 16)
        position = end + 2
        if size == 0:
            break
        if position + size > len(framed):
            raise ValueError("short chunk")
        parts.append(view[position : position + size])
        position += size + 2
    lines = framed[position:].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return b"".join(parts), {name.strip().lower(): value.strip() for name, _, value in pairs}
