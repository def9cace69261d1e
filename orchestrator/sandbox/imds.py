"""Instance metadata (IMDSv2) of all hosts: each has its own address, and the address says who asks.

One thread with one selector serves them all: a gang asks a few small questions at boot, all at once. Version 1, without
tokens, is refused, as `HttpTokens: required` does. Never asks who connects: like the real one, it is reached by
whatever runs on the host.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.core.units import iso
from orchestrator.sandbox.boundary import HostSpec

ACCOUNT = "123456789012"
TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
MAX_TTL = 21_600
MAX_REQUEST = 16_384
REPLY_SECONDS = 5.0

log = logging.getLogger(__name__)

Credentials = Callable[[str], dict[str, str]]
Reply = tuple[int, str, bytes]


@dataclass(slots=True)
class Metadata:
    """What the service knows of one host. `interruption` and `advice`: times EC2 announced (ISO-8601), None before."""

    spec: HostSpec
    booted: datetime
    interruption: str | None = None
    advice: str | None = None
    tokens: dict[str, float] = field(default_factory=dict)

    def answer(self, path: str, credentials: Credentials) -> Reply:
        """Return status, content type and body for a GET that has a valid token."""
        leaves = self._leaves(credentials)
        found = leaves.get(path)
        if found is not None:
            try:
                body = found()
            except Exception:
                log.exception("no answer to %s for %s", path, self.spec.instance_id)
                return 500, "text/plain", b"Internal Server Error\n"
            return 200, "application/json" if body.startswith(b"{") else "text/plain", body
        folder = path if path.endswith("/") else path + "/"
        below = sorted({_step(leaf.removeprefix(folder)) for leaf in leaves if leaf.startswith(folder)})
        if below:
            return 200, "text/plain", "\n".join(below).encode()
        return 404, "text/plain", b"Not Found\n"

    def _leaves(self, credentials: Credentials) -> dict[str, Callable[[], bytes]]:
        """Return every path there is now, with what gives its body; absent ones are 404."""
        spec = self.spec
        name = "ip-" + spec.address.replace(".", "-") + ".ec2.internal"
        plain = {
            "ami-id": spec.image_id,
            "ami-launch-index": "0",
            "hostname": name,
            "instance-id": spec.instance_id,
            "instance-life-cycle": spec.lifecycle,
            "instance-type": spec.instance_type,
            "local-hostname": name,
            "local-ipv4": spec.address,
            "placement/availability-zone": spec.zone,
            "placement/region": spec.region,
            "services/domain": "amazonaws.com",
            "services/partition": "aws",
        }
        if spec.public_key:
            plain["public-keys/0/openssh-key"] = spec.public_key.strip()
        if self.interruption is not None:
            plain["spot/instance-action"] = json.dumps({"action": "terminate", "time": self.interruption})
            plain["spot/termination-time"] = self.interruption
        if self.advice is not None:
            plain["events/recommendations/rebalance"] = json.dumps({"noticeTime": self.advice})
        leaves: dict[str, Callable[[], bytes]] = {
            f"/latest/meta-data/{path}": value.encode for path, value in plain.items()
        }
        role = spec.role_name
        if role is not None:
            leaves[f"/latest/meta-data/iam/security-credentials/{role}"] = lambda: _role(credentials(role))
        if spec.user_data:
            leaves["/latest/user-data"] = lambda: spec.user_data
        leaves["/latest/dynamic/instance-identity/document"] = self._identity
        return leaves

    def _identity(self) -> bytes:
        spec = self.spec
        return json.dumps(
            {
                "accountId": ACCOUNT,
                "architecture": "x86_64",
                "availabilityZone": spec.zone,
                "imageId": spec.image_id,
                "instanceId": spec.instance_id,
                "instanceType": spec.instance_type,
                "pendingTime": iso(self.booted),
                "privateIp": spec.address,
                "region": spec.region,
                "version": "2017-09-30",
            },
            indent=2,
        ).encode()


def _step(rest: str) -> str:
    first, slash, _ = rest.partition("/")
    return first + slash


def _role(credentials: Mapping[str, str]) -> bytes:
    now = iso(datetime.now(UTC).replace(microsecond=0))
    return json.dumps({"Code": "Success", "LastUpdated": now, "Type": "AWS-HMAC", **credentials}, indent=2).encode()


class Imds:
    """The metadata services of a sandbox, at `<host address>:<port>`."""

    def __init__(self, port: int, credentials: Credentials) -> None:
        self.port = port
        self._credentials = credentials
        self._lock = threading.Lock()
        self._hosts: dict[str, tuple[socket.socket, Metadata]] = {}
        self._selector = selectors.EpollSelector()  # takes new sockets while it waits
        threading.Thread(target=self._serve, name="imds", daemon=True).start()

    def open(self, spec: HostSpec) -> None:
        """Serve a host from now on. Raises OSError when its address and port are taken."""
        listener = socket.create_server((spec.address, self.port), backlog=64)
        listener.setblocking(False)
        with self._lock:
            self._hosts[spec.instance_id] = (listener, Metadata(spec, datetime.now(UTC)))
            self._selector.register(listener, selectors.EVENT_READ, spec.instance_id)

    def close(self, instance_id: str) -> None:
        """Serve a host no longer; unknown ones are ignored."""
        with self._lock:
            listener, _ = self._hosts.pop(instance_id, (None, None))
            if listener is not None:
                self._selector.unregister(listener)
                listener.close()

    def announce(self, instance_id: str, iso_time: str) -> None:
        """Show a host the interruption notice; unknown ones are ignored."""
        with self._lock:
            if instance_id in self._hosts:
                self._hosts[instance_id][1].interruption = iso_time

    def advise(self, instance_id: str, iso_time: str) -> None:
        """Show a host the advice to rebalance; unknown ones are ignored."""
        with self._lock:
            if instance_id in self._hosts:
                self._hosts[instance_id][1].advice = iso_time

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                with contextlib.suppress(OSError):
                    if isinstance(key.data, str):
                        self._accept(key.fileobj, key.data)
                    else:
                        self._receive(key.data)

    def _accept(self, listener: object, instance_id: str) -> None:
        with self._lock:
            known = self._hosts.get(instance_id)
            if known is None or known[0] is not listener:
                return
            connection, _ = known[0].accept()
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, _Connection(connection, known[1]))

    def _receive(self, link: _Connection) -> None:
        try:
            piece = link.socket.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        link.received += piece
        if piece and b"\r\n\r\n" not in link.received and len(link.received) < MAX_REQUEST:
            return
        self._selector.unregister(link.socket)
        with link.socket:
            if b"\r\n\r\n" in link.received:
                link.socket.settimeout(REPLY_SECONDS)
                link.socket.sendall(reply(link.received, link.metadata, self._credentials))


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    metadata: Metadata
    received: bytes = b""


def reply(request: bytes, metadata: Metadata, credentials: Credentials) -> bytes:
    """Return the whole HTTP reply to a whole HTTP request (its body, if any, is ignored)."""
    first, *lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, target, *_ = [*first.split(" "), "", ""]
    path = _path(target)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    extra = ""
    if path == TOKEN_PATH:
        status, kind, body, extra = _token(method, headers, metadata)
    elif method != "GET":
        status, kind, body = 405, "text/plain", b""
    elif metadata.tokens.get(headers.get("x-aws-ec2-metadata-token", ""), 0.0) <= time.monotonic():
        status, kind, body = 401, "text/plain", b"Unauthorized\n"
    else:
        status, kind, body = metadata.answer(path, credentials)
    reason = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}.get(status, "No")
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}"
    return f"{head}Server: EC2ws\r\nConnection: close\r\n\r\n".encode() + body


def _path(path: str) -> str:
    """Return the path with one slash where clients put several: an endpoint may end in one."""
    return "/" + "/".join(part for part in path.partition("?")[0].split("/") if part) + "/" * path.endswith("/")


def _token(method: str, headers: Mapping[str, str], metadata: Metadata) -> tuple[int, str, bytes, str]:
    if "x-forwarded-for" in headers:
        return 403, "text/plain", b"", ""
    ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
    if method != "PUT":
        return 405, "text/plain", b"", "Allow: OPTIONS, PUT\r\n"
    if not ttl.isdecimal() or not 1 <= int(ttl) <= MAX_TTL:
        return 400, "text/plain", b"Bad Request\n", ""
    now = time.monotonic()
    metadata.tokens = {token: until for token, until in metadata.tokens.items() if until > now}
    token = secrets.token_urlsafe(42)
    metadata.tokens[token] = now + int(ttl)
    return 200, "text/plain", token.encode(), f"X-aws-ec2-metadata-token-ttl-seconds: {ttl}\r\n"
