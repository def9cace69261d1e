"""What a node does once at boot: fetch the code bundle, unpack it, publish its public SSH host keys.

Sent inside user-data, so it imports nothing of the project and stays small. A gang of 64 sandbox nodes runs it on two
cores at once, so it also leaves out what is slow to import: http.client, json, zipfile and typing together would cost
four times what everything done here costs. May not hold or print a secret.
"""

from __future__ import annotations

import _socket  # `socket` would cost as much as the interpreter; the little that HTTP needs is in its C half
import hashlib
import hmac
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

METADATA = "http://169.254.169.254"
OLDEST_PYTHON = (3, 11)
PATIENCE = 150.0  # seconds: a new instance profile may take that long to work everywhere
LONGEST_PAUSE = 5.0
TIMEOUT = 30.0
CHUNK = 1 << 18
# A fault that waiting does not mend; everything else (no credentials yet, 403, 404, 5xx, no connection) is tried again.
FINAL = frozenset({301, 307, 400, 405, 411, 412})


class Refused(Exception):
    """An HTTP reply that is no success."""

    def __init__(self, what: str, status: int, body: bytes) -> None:
        super().__init__(f"{what}: HTTP {status} {body[:300].decode(errors='replace')}")
        self.status = status


def sign(
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
    *,
    payload: str,
    credentials: tuple[str, str, str],
    region: str,
    stamp: str,
) -> dict[str, str]:
    """Return `headers` with those that AWS Signature Version 4 adds for S3.

    `headers` have lower-case names; `payload` is the sha256 (hex) of the body; `credentials` are access key, secret
    key and session token; `stamp` is the time as `YYYYMMDDTHHMMSSZ`. `path` needs no escaping and there is no query.
    """
    key_id, secret, token = credentials
    signed = {**headers, "host": host, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    if token:
        signed["x-amz-security-token"] = token
    names = ";".join(sorted(signed))
    canonical = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
    request = f"{method}\n{path}\n\n{canonical}\n{names}\n{payload}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    credential = f"Credential={key_id}/{scope}"
    signed["authorization"] = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={key.hex()}"
    return signed


def connect(scheme: str, host: str) -> Any:
    """Return a connected socket; `host` may carry a port."""
    name, _, port = host.partition(":")
    if scheme == "https":
        import socket
        import ssl

        plain = socket.create_connection((name, int(port or 443)), TIMEOUT)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=name)
    raw = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    raw.settimeout(TIMEOUT)
    raw.connect((name, int(port or 80)))
    return raw


def http(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    sink: Callable[[bytes], object] | None = None,
) -> bytes:
    """Return the body of a 2xx reply, or hand it to `sink` in pieces. Raises Refused or OSError."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    head = f"{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name != "host")
    link = connect(scheme, host)
    try:
        rest_of = memoryview(head.encode() + b"\r\n" + body)
        while rest_of:
            rest_of = rest_of[link.send(rest_of) :]
        start = b""
        while b"\r\n\r\n" not in start:
            piece = link.recv(CHUNK)
            if not piece or len(start) > CHUNK:
                raise OSError(f"{host} sent no HTTP reply")
            start += piece
        top, _, piece = start.partition(b"\r\n\r\n")
        lines = top.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(fields.get("content-length", -1))
        kept: list[bytes] = []
        take = sink if sink is not None and status == 200 else kept.append
        count = len(piece)
        take(piece)
        while count != length and (piece := link.recv(CHUNK)):
            take(piece)
            count += len(piece)
    finally:
        link.close()
    if not 200 <= status < 300:
        raise Refused(f"{method} {url}", status, b"".join(kept))
    if length not in {-1, count}:
        raise OSError(f"{method} {url}: {count} of {length} bytes came")
    return b"".join(kept)


class Boot:
    """One boot. `config` has run, bucket, region, bundle (its sha256, hex), and the minutes the timer was armed for."""

    def __init__(self, config: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self.config = config
        self.metadata = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA).rstrip("/")
        self.endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
        self.key_folder = environ.get("SSH_HOST_KEY_DIR", "/etc/ssh")
        self.root = f"{environ['HOME']}/orch/{config['run']}"
        self.said: list[str] = []
        self.token = ""
        self.instance_id = ""
        self.credentials: tuple[str, str, str] | None = None

    def say(self, text: str) -> None:
        """Print a line for the machine's console and keep it for `boot_failure`."""
        self.said.append(text)
        print(f"orch: {text}", flush=True)  # noqa: T201

    def mark(self, stage: str) -> None:
        """Note when a stage began, as `run.sh` does later on."""
        with open(f"{self.root}/times", "a") as file:  # noqa: PTH123
            file.write(f"0 {stage} {time.time():.3f}\n")

    def patiently(self, what: str, attempt: Callable[[], bytes]) -> bytes:
        """Return what `attempt` returns, trying again while waiting may help."""
        deadline = time.monotonic() + PATIENCE
        pause = 0.1
        while True:
            try:
                return attempt()
            except (Refused, OSError) as error:
                final = isinstance(error, Refused) and error.status in FINAL
                if final or time.monotonic() + pause > deadline:
                    raise
                self.say(f"{what}: {error}; again in {pause:.1f} s")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def meta(self, path: str) -> str:
        """Return a value of the instance metadata service (version 2)."""
        if not self.token:
            lifetime = {"x-aws-ec2-metadata-token-ttl-seconds": "21600"}
            self.token = http("PUT", f"{self.metadata}/latest/api/token", lifetime).decode()
        try:
            return http("GET", f"{self.metadata}/latest/{path}", {"x-aws-ec2-metadata-token": self.token}).decode()
        except Refused:
            self.token = ""
            raise

    def read_credentials(self) -> tuple[str, str, str]:
        """Return the node role's credentials."""
        folder = "meta-data/iam/security-credentials/"
        text = self.meta(folder + self.meta(folder).split()[0])

        def field(name: str) -> str:
            # The values are base64, so this needs no JSON parser.
            _, found, after = text.partition(f'"{name}"')
            if not found:
                raise OSError(f"the role's credentials have no {name} yet")
            return after.split('"')[1]

        return field("AccessKeyId"), field("SecretAccessKey"), field("Token")

    def s3(
        self,
        method: str,
        key: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        sink: Callable[[bytes], object] | None = None,
    ) -> bytes:
        """Perform one request to the run's bucket."""
        bucket, region = self.config["bucket"], self.config["region"]
        if self.endpoint:
            scheme, _, rest = self.endpoint.partition("://")
            host, path = rest.partition("/")[0], f"/{bucket}/{key}"
        else:
            scheme, host, path = "https", f"{bucket}.s3.{region}.amazonaws.com", f"/{key}"
        if self.credentials is None:
            self.credentials = self.read_credentials()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = hashlib.sha256(body).hexdigest()
        signed = sign(
            method,
            host,
            path,
            headers or {},
            payload=digest,
            credentials=self.credentials,
            region=region,
            stamp=stamp,
        )
        try:
            return http(method, f"{scheme}://{host}{path}", signed, body, sink)
        except Refused:
            self.credentials = None
            raise

    def fetch_bundle(self) -> bytes:
        """Write the bundle to disk, check it against its digest and unpack it beside its final place."""
        digest = hashlib.sha256()
        archive = f"{self.root}/bundle.tar.gz"
        with open(archive, "wb", buffering=0) as file:  # noqa: PTH123 - pathlib is slow to import

            def sink(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            self.s3("GET", f"bundles/{self.config['bundle']}", sink=sink)
        if digest.hexdigest() != self.config["bundle"]:
            raise OSError(f"the bundle's sha256 is {digest.hexdigest()}, not {self.config['bundle']}")
        fresh = f"{self.root}/bundle.new"
        os.makedirs(fresh, exist_ok=True)  # noqa: PTH103
        child = os.posix_spawnp("tar", ["tar", "-xzf", archive, "-C", fresh], os.environ)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != 0:
            raise OSError(f"tar ended with {status}; is the disk full?")
        os.rename(fresh, f"{self.root}/bundle")  # noqa: PTH104
        os.unlink(archive)  # noqa: PTH108
        return b""

    def host_keys(self) -> bytes:
        """Return the public host keys, one a line. Raises OSError while sshd has none."""
        names = os.listdir(self.key_folder)  # noqa: PTH208
        keys = b""
        for name in sorted(names):
            if name.startswith("ssh_host_") and name.endswith("_key.pub"):
                with open(f"{self.key_folder}/{name}", "rb") as file:  # noqa: PTH123
                    keys += file.read().strip() + b"\n"
        if not keys:
            raise OSError(f"no host keys in {self.key_folder}")
        return keys

    def publish(self, name: str, body: bytes) -> None:
        """Create an object of this node once; the same content there already is fine (a reply may have been lost)."""
        key = f"runs/{self.config['run']}/nodes/{self.instance_id}/{name}"
        try:
            self.patiently(name, lambda: self.s3("PUT", key, body, {"if-none-match": "*"}))
        except Refused as error:
            if error.status != 412 or self.patiently(name, lambda: self.s3("GET", key)) != body:
                raise

    def run(self) -> None:
        """Do it all; the host keys last, since they tell the scheduler that the node is ready."""
        os.makedirs(self.root, 0o700, exist_ok=True)  # noqa: PTH103
        with open(f"{self.root}/deadline", "w") as file:  # noqa: PTH123
            file.write(f"{int(time.time()) + 60 * int(self.config['minutes'])}\n")
        self.mark("bundle")
        self.instance_id = self.patiently("instance id", lambda: self.meta("meta-data/instance-id").encode()).decode()
        if sys.version_info < OLDEST_PYTHON:
            raise OSError(f"this image's python3 is {sys.version.split()[0]}; the node's agent needs 3.11 or later")
        if not any(os.path.isdir(f"{folder}/botocore") for folder in sys.path):  # noqa: PTH112
            raise OSError(f"this image's python3 ({sys.executable}) has no boto3, which the node's agent needs")
        if not os.path.isdir(f"{self.root}/bundle"):  # noqa: PTH112
            self.patiently("bundle", self.fetch_bundle)
        self.mark("ready")
        self.publish("host_keys", self.patiently("host keys", self.host_keys))


def main(config: Mapping[str, str]) -> None:
    """Boot this node; when it cannot be done, say so in S3 as well as that is possible, and exit 1."""
    boot = Boot(config, os.environ)
    try:
        boot.run()
    except Exception as error:
        boot.say(f"boot failed: {error or type(error).__name__}")
        if boot.instance_id:
            boot.publish("boot_failure", "\n".join(boot.said[-40:]).encode())
        sys.exit(1)
