"""What a booting node talks to: a metadata service and, over HTTP, moto's S3."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.session
from moto.server import ThreadedMotoServer

BUCKET = "orch-1-us-east-1"
ROLE = "meta-data/iam/security-credentials/"
CREDENTIALS = json.dumps(
    {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": "AKIDTEST",
        "SecretAccessKey": "secret/+=",
        "Token": "tok==",
        "LastUpdated": "2026-01-01T00:00:00Z",
        "Expiration": "2096-01-01T00:00:00Z",
    },
    indent=2,
)


class Metadata:
    """IMDSv2. `pages` are what it serves under /latest/; `failures` status codes it answers with first."""

    def __init__(self) -> None:
        self.pages = {"meta-data/instance-id": "i-0abc", ROLE: "node-role", f"{ROLE}node-role": CREDENTIALS}
        self.failures: list[int] = []
        self.asked: list[str] = []
        self.token = "token-1"
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                wanted = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                self.answer(200 if wanted and self.path == "/latest/api/token" else 400, metadata.token)

            def do_GET(self) -> None:
                path = self.path.removeprefix("/latest/")
                metadata.asked.append(path)
                if self.headers.get("X-aws-ec2-metadata-token") != metadata.token:
                    self.answer(401, "")
                elif metadata.failures:
                    self.answer(metadata.failures.pop(0), "later")
                else:
                    self.answer(200 if path in metadata.pages else 404, metadata.pages.get(path, "none"))

            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serve_metadata() -> Iterator[Metadata]:
    """Give a metadata service and take it away."""
    metadata = Metadata()
    thread = threading.Thread(target=metadata.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield metadata
    finally:
        metadata.server.shutdown()
        metadata.server.server_close()
        thread.join()


@contextmanager
def serve_s3() -> Iterator[str]:
    """Give the endpoint of an S3 on loopback and take it away."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


def s3_client(endpoint: str) -> Any:
    """Return botocore's client of it, with a bucket made."""
    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id="AKIDTEST",
        aws_secret_access_key="secret/+=",
    )
    client.create_bucket(Bucket=BUCKET)
    return client
