"""Kills a scheduler at one of its effects. Python itself imports this where its folder is on PYTHONPATH.

An effect is what goes over the wire to change something: a request to EC2 or S3, a command by SSH. It is seen where it
leaves the process, in botocore and paramiko, so orch knows nothing of it. Nothing happens unless the process is a
scheduler and `$ORCH_CRASH_FILE` is set: that file gets a line for each effect, its name and its number among those of
that name. With `$ORCH_CRASH_AT` (`before NAME NUMBER` or `after ...`) the process gets SIGKILL there, and the file the
line `killed`; a scheduler that finds this line is the successor, and is left alone. One that ends writes `ended`.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KILLED, ENDED = "killed", "ended"
_READS = ("Describe", "Get", "List")
_INSTANCE = re.compile(r"\bi-[0-9a-f]{8,}")


def name_of(method: str, url: str, authorization: str, body: bytes) -> str | None:
    """Return what a request to AWS changes, without what each run has its own names for; None when it only reads."""
    scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
    service = scope[3] if len(scope) == 5 else ""
    if service == "ec2":
        action = parse_qs(body.decode())["Action"][0]
        return None if action.startswith(_READS) else f"EC2 {action}"
    if service != "s3" or method in {"GET", "HEAD"}:
        return None
    key = re.sub(r"^/[^/]+/(runs/[^/]+/)?", "", unquote(urlsplit(url).path))
    if key.startswith("ledger/"):
        entry = json.loads(body)
        return f"ledger: {entry['kind']} {entry['action']}"
    return f"S3 {_INSTANCE.sub('*', key)}"


class Crash:
    """Writes down the effects of this process, and ends it at one of them."""

    def __init__(self, file: Path, at: str) -> None:
        self._file = file
        self._at = at
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, name: str) -> str:
        """Take in that an effect is about to happen; return its name and number."""
        with self._lock:
            self._seen[name] += 1
            which = f"{name} {self._seen[name]}"
            self.write(which)
        self._end_at(f"before {which}")
        return which

    def done(self, which: str) -> None:
        """Take in that it has happened, and that nothing has come of it yet."""
        self._end_at(f"after {which}")

    def write(self, line: str) -> None:
        """Append a line to the file."""
        with self._file.open("a") as file:
            file.write(line + "\n")

    def _end_at(self, place: str) -> None:
        if place == self._at:
            self.write(KILLED)
            os.kill(os.getpid(), signal.SIGKILL)


def _text(body: Any) -> bytes:
    """Return the body of a request, which stays as it is."""
    if hasattr(body, "read"):
        where = body.tell()
        text = bytes(body.read())
        body.seek(where)
        return text
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def watch(crash: Crash) -> None:
    """Have `crash` told of everything that leaves this process to change something."""
    import paramiko
    from botocore.httpsession import URLLib3Session

    send, execute, status = URLLib3Session.send, paramiko.Channel.exec_command, paramiko.Channel.recv_exit_status
    commands: dict[paramiko.Channel, str] = {}

    def sending(session: Any, request: Any) -> Any:
        authorization = request.headers.get("Authorization", b"")
        signed = authorization.decode() if isinstance(authorization, bytes) else str(authorization)
        name = name_of(request.method, request.url, signed, _text(request.body))
        which = crash.begin(name) if name is not None else None
        reply = send(session, request)
        if which is not None:
            crash.done(which)
        return reply

    def executing(channel: paramiko.Channel, command: str | bytes) -> None:
        commands[channel] = crash.begin("SSH command")
        execute(channel, command)

    def ending(channel: paramiko.Channel) -> int:
        code = status(channel)
        if channel in commands:
            crash.done(commands.pop(channel))
        return code

    URLLib3Session.send = sending
    setattr(paramiko.Channel, "exec_command", executing)  # noqa: B010 - its type is another function's
    setattr(paramiko.Channel, "recv_exit_status", ending)  # noqa: B010


def _is_first(file: Path) -> bool:
    return not file.exists() or KILLED not in file.read_text().splitlines()


if "schedule" in sys.orig_argv and (_name := os.environ.get("ORCH_CRASH_FILE")) and _is_first(Path(_name)):
    _crash = Crash(Path(_name), os.environ.get("ORCH_CRASH_AT", ""))
    watch(_crash)
    atexit.register(_crash.write, ENDED)
