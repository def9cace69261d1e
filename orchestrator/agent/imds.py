"""The instance metadata service, version 2, as far as the agent asks it."""

from __future__ import annotations

import http.client
import os
from urllib.parse import urlsplit

METADATA = "http://169.254.169.254"
TOKEN_SECONDS = "21600"  # noqa: S105 - a lifetime
TIMEOUT = 2.0


class Metadata:
    """One node's metadata service."""

    def __init__(self, endpoint: str | None = None) -> None:
        found = endpoint or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or METADATA
        self._host = urlsplit(found).netloc
        self._token: str | None = None

    def get(self, path: str) -> str | None:
        """Return what is at `/latest/<path>`, None when there is nothing (404). Raises OSError."""
        for _ in range(2):
            if self._token is None:
                status, body = self._ask("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": TOKEN_SECONDS})
                if status != 200:
                    raise OSError(f"the metadata service gave no token: HTTP {status}")
                self._token = body
            status, body = self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token})
            if status == 200:
                return body
            if status == 404:
                return None
            self._token = None
            if status != 401:
                break
        raise OSError(f"the metadata service answered HTTP {status}")

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        link = http.client.HTTPConnection(self._host, timeout=TIMEOUT)
        try:
            link.request(method, f"/latest/{path}", headers=headers)
            reply = link.getresponse()
            return reply.status, reply.read(65_536).decode(errors="replace")
        except http.client.HTTPException as error:
            raise OSError(f"the metadata service answered nonsense: {error!r}") from error
        finally:
            link.close()
