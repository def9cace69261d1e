"""A threaded HTTP/1.1 server with kept-alive connections for one WSGI application, on a loopback address only.

Werkzeug's closes every connection after one request, which costs dozens of nodes on few cores more than the requests.
Knows nothing of AWS.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from ipaddress import ip_address
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from orchestrator.errors import BadInput

Application = Callable[[dict[str, Any], Callable[[str, list[tuple[str, str]]], Any]], Iterable[bytes]]
IDLE_SECONDS = 120.0


@runtime_checkable
class SendsItself(Protocol):
    """A body that has a quicker way to a socket than through this process's memory, where it lies in a file."""

    @property
    def in_file(self) -> bool:
        """Whether it does."""

    def send_to(self, connection: socket.socket) -> None:
        """Send all of it."""


class Server(ThreadingHTTPServer):
    """Serves `application` until closed. Raises BadInput for an address that others could reach."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, application: Application, host: str, port: int) -> None:
        if not ip_address(host).is_loopback:
            raise BadInput(f"the sandbox does not listen on {host}", "use a loopback address: 127.0.0.1")
        self.application = application
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__((host, port), _Handler)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def opened(self, connection: socket.socket) -> None:
        """Remember a connection, so that closing the server closes it."""
        with self._open_lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._open_lock:
            self._open.discard(connection)

    def server_close(self) -> None:
        """Stop listening and drop every connection."""
        super().server_close()
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "orch-sandbox"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        self.server.closed(self.connection)
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

    def handle_expect_100(self) -> bool:
        """Tell the client at once to go on: it waits for that before it sends its body."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _serve(self) -> None:
        try:
            # The body is read whole before anything is answered, so that the next request line follows it.
            body = self._read_body()
        except ValueError:
            self.close_connection = True
            self.send_error(400)
            return
        chunks = self.server.application(self._environ(body), self._start_response)
        if self.command != "HEAD":
            if isinstance(chunks, SendsItself) and chunks.in_file:
                self.wfile.flush()
                chunks.send_to(self.connection)
            else:
                for chunk in chunks:
                    self.wfile.write(chunk)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_OPTIONS = _serve  # noqa: N815 - names http.server looks for

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._read_chunked()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if len(body) != length:
            raise ConnectionResetError("the client went away in its body")
        return body

    def _read_chunked(self) -> bytes:
        parts: list[bytes] = []
        while size := int(self.rfile.readline(64).split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline(2)
        while self.rfile.readline(8192).strip():
            pass
        return b"".join(parts)

    def _environ(self, body: bytes) -> dict[str, Any]:
        parts = urlsplit(self.path) if self.path.startswith("http://") else None
        target = self.path if parts is None else parts.path + (f"?{parts.query}" if parts.query else "")
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote(path, "latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": target,
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": self.client_address[0],
            "REMOTE_PORT": str(self.client_address[1]),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
        }
        for name, value in self.headers.items():
            key = name.upper().replace("-", "_")
            if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
                key = f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        environ["CONTENT_LENGTH"] = str(len(body))
        return environ

    def _start_response(self, status: str, headers: list[tuple[str, str]]) -> None:
        code, _, phrase = status.partition(" ")
        self.send_response(int(code), phrase)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
