"""A plain moto server on loopback behind a wrapper that records calls, injects faults and answers what moto lacks."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Form = dict[str, str]
Reply = tuple[int, str, bytes]
Stub = Callable[[Form], Reply]

EC2_XMLNS = "http://ec2.amazonaws.com/doc/2016-11-15/"


class Wire:
    """What is between the client under test and moto.

    `calls` has an action a request: EC2's and IAM's `Action`, the name in `X-Amz-Target`, or `PUT /bucket/key`;
    `forms` what came with it: the form, the JSON, or S3's own headers.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.forms: list[Form] = []
        self._faults: dict[str, deque[Reply]] = {}
        self._stubs: dict[str, Stub] = {}
        self._lost: set[str] = set()
        self._moto = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def forget(self) -> None:
        """Back to an empty cloud: no faults, no stubs, no calls."""
        moto_api_backend.reset()
        for each in (self.calls, self.forms, self._faults, self._stubs, self._lost):
            each.clear()

    def fail(self, action: str, code: str, *, status: int = 400, times: int = 1, message: str = "on purpose") -> None:
        """Let the next `times` calls of `action` fail with `code`."""
        if " /" in action:
            body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        else:
            body = (
                f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
            )
        self._faults.setdefault(action, deque()).extend([(status, "text/xml", body.encode())] * times)

    def fail_with(self, action: str, reply: Reply) -> None:
        """Let the next call of `action` be answered with this."""
        self._faults.setdefault(action, deque()).append(reply)

    def lose_reply(self, action: str) -> None:
        """Carry out the next call of `action`, then answer with a 500 as if the reply had been lost."""
        self._lost.add(action)

    def answer(self, action: str, stub: Stub) -> None:
        """Answer every call of `action` with `stub(form)`."""
        self._stubs[action] = stub

    def count(self, action: str) -> int:
        return self.calls.count(action)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        environ["wsgi.input"] = io.BytesIO(body)
        form = {name: values[0] for name, values in parse_qs(_text(environ, body)).items()}
        target = str(environ.get("HTTP_X_AMZ_TARGET", "")).rpartition(".")[2]
        action = form.get("Action") or target or f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        if target:
            form = {"json": body.decode()}
        if not form:
            form = {name: str(value) for name, value in environ.items() if name.startswith("HTTP_X_AMZ_")}
        self.calls.append(action)
        self.forms.append(form)
        if self._faults.get(action):
            return _send(start, self._faults[action].popleft())
        if action in self._stubs:
            return _send(start, self._stubs[action](form))
        if action in self._lost:
            self._lost.discard(action)
            list(self._moto(environ, lambda *_: lambda _: None))
            return _send(start, (500, "text/xml", b"<Error><Code>InternalError</Code><Message>lost</Message></Error>"))
        reply: Iterable[bytes] = self._moto(environ, start)
        return reply


def _text(environ: WSGIEnvironment, body: bytes) -> str:
    kind = str(environ.get("CONTENT_TYPE", ""))
    return body.decode() if kind.startswith("application/x-www-form-urlencoded") else ""


def _send(start: StartResponse, reply: Reply) -> Iterable[bytes]:
    status, kind, body = reply
    start(f"{status} -", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def ec2_reply(action: str, inner: str) -> Reply:
    """Return an EC2 reply of `action`."""
    body = f'<{action}Response xmlns="{EC2_XMLNS}"><requestId>r</requestId>{inner}</{action}Response>'
    return 200, "text/xml", body.encode()


def json_reply(value: dict[str, Any]) -> Reply:
    """Return a reply of a JSON protocol service."""
    return 200, "application/x-amz-json-1.1", json.dumps(value).encode()


def json_error(code: str, status: int = 400) -> Reply:
    """Return a refusal of a JSON protocol service."""
    return status, "application/x-amz-json-1.1", json.dumps({"__type": code, "message": "on purpose"}).encode()
