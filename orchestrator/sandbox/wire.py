"""Requests and replies of the sandbox's cloud as plain values, and errors in the wire form of each service.

Knows the shapes of AWS's protocols, nothing of what the services do. May not import moto.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]

QUERY_SERVICES = frozenset({"iam", "sts"})
JSON_SERVICES = frozenset({"ssm", "pricing", "servicequotas", "ec2-instance-connect"})

# The codes with which AWS answers otherwise than with 400.
STATUS = {
    "AccessDenied": 403,
    "AccessDeniedException": 400,
    "AuthFailure": 401,
    "EC2InstanceNotFoundException": 404,
    "EC2ThrottledException": 503,
    "ExpiredToken": 403,
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
    "InternalFailure": 500,
    "InvalidAccessKeyId": 403,
    "InvalidClientTokenId": 403,
    "MethodNotAllowed": 405,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "PreconditionFailed": 412,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "UnauthorizedOperation": 403,
    "Unavailable": 503,
}
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
PHRASES = {200: "OK", 204: "No Content", 206: "Partial Content", 304: "Not Modified", 404: "Not Found"}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. `service` is that of its credential scope; `raw_path` is still percent-encoded."""

    method: str
    raw_path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes
    service: str = ""
    region: str = ""
    access_key: str = ""

    @property
    def path(self) -> str:
        """The decoded path."""
        return unquote(self.raw_path)

    @property
    def query(self) -> dict[str, str]:
        """The query string, the last value of each name."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        """The form of an EC2, IAM or STS call: Action, Version and flattened parameters."""
        if self.service not in {"ec2", *QUERY_SERVICES}:
            return {}
        return dict(parse_qsl(self.body.decode(errors="replace"), keep_blank_values=True)) | self.query

    def header(self, name: str) -> str:
        """Return a header ("" if absent); `name` in lower case."""
        return self.headers.get(name, "")


@dataclass(slots=True)
class Reply:
    """What is sent back. `body` is bytes or an iterable of them with a length."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = b""


class Refused(Exception):
    """A call that is answered with an AWS error: raised anywhere below, rendered in the form of the service."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def read_call(environ: Environ) -> Call:
    """Return the request in `environ`, its body read whole."""
    raw = str(environ.get("RAW_URI") or environ["PATH_INFO"])
    raw_path = raw.partition("?")[0]
    headers = {key[5:].replace("_", "-").lower(): str(value) for key, value in environ.items() if key[:5] == "HTTP_"}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = str(environ[name])
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length else b""
    return Call(str(environ["REQUEST_METHOD"]), raw_path, str(environ.get("QUERY_STRING", "")), headers, body)


def to_environ(call: Call) -> Environ:
    """Return the WSGI environment of `call`: what moto's request object is made from."""
    environ: Environ = {
        "REQUEST_METHOD": call.method,
        "PATH_INFO": call.path.encode().decode("latin-1"),
        "QUERY_STRING": call.query_string,
        "RAW_URI": f"{call.raw_path}?{call.query_string}" if call.query_string else call.raw_path,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(call.body),
    }
    for name, value in call.headers.items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    environ["CONTENT_TYPE"] = call.headers.get("content-type", "")
    environ["CONTENT_LENGTH"] = str(len(call.body))
    return environ


def send(reply: Reply, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a WSGI call with `reply`; the length of the body is always stated."""
    headers = {name.lower(): str(value) for name, value in reply.headers.items() if name.lower() != "status"}
    body = reply.body.encode() if isinstance(reply.body, str) else reply.body
    headers.setdefault("content-length", str(len(body)))
    start_response(f"{reply.status} {PHRASES.get(reply.status, 'Status')}", list(headers.items()))
    return [body] if isinstance(body, bytes) else body


def error_reply(call: Call, code: str, message: str, status: int | None = None) -> Reply:
    """Return an error as the service of `call` words it."""
    status = status or STATUS.get(code, 400)
    request_id = secrets.token_hex(16)
    if call.service in JSON_SERVICES:
        body = json.dumps({"__type": code, "message": message})
        return Reply(status, {"content-type": "application/x-amz-json-1.1", "x-amzn-errortype": code}, body.encode())
    text = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if call.service == "ec2":
        body = f"<Response><Errors><Error>{text}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    elif call.service in QUERY_SERVICES:
        text = f"<Type>{'Sender' if status < 500 else 'Receiver'}</Type>{text}"
        body = f"<ErrorResponse><Error>{text}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    else:
        body = f"<Error>{text}<RequestId>{request_id}</RequestId></Error>"
    headers = {"content-type": "application/xml", "x-amz-request-id": request_id}
    return Reply(status, headers, b"" if call.method == "HEAD" else (XML + body).encode())
