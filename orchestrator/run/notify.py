"""Telling the news of a run to a webhook or a shell command, beside its scheduler: it can neither delay nor fail it.

Each message is claimed in S3 before it is sent (create-once), so that of several schedulers one tells it, at most once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.facts import EC2_INTERRUPTED
from orchestrator.core.ids import Keys
from orchestrator.errors import PreconditionFailed
from orchestrator.run.news import News, news_of
from orchestrator.run.read import Reader

LOOK_EVERY = 10.0
SEND_SECONDS = 15.0
TRIES = 3
# The last round, when the run has ended: as long as one message may take with all its tries, and a little.
CLOSE_SECONDS = TRIES * SEND_SECONDS + 15.0
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Targets:
    """Where news go: a Slack-compatible webhook, a shell command, both, or nowhere."""

    webhook: str | None = None
    command: str | None = None

    @property
    def any(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self.webhook or self.command)


@contextmanager
def telling(session: Session, bucket: Bucket, run_id: str, targets: Targets, log: Log) -> Iterator[None]:
    """Tell the news of a run while the block lasts, and what is new when it ends. Without targets do nothing."""
    if not targets.any:
        yield
        return
    over = threading.Event()
    teller = _Teller(session, bucket, run_id, targets, log)
    thread = threading.Thread(target=teller.work, args=(over,), name="news", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(CLOSE_SECONDS)


class _Teller:
    """Looks at a run every few seconds."""

    def __init__(self, session: Session, bucket: Bucket, run_id: str, targets: Targets, log: Log) -> None:
        self._open: Callable[[], Reader] = lambda: Reader(session, bucket, run_id)
        self._bucket = bucket
        self._run_id = run_id
        self._targets = targets
        self._log = log
        self._told: set[str] = set()
        self._reader: Reader | None = None

    def work(self, over: threading.Event) -> None:
        """Look until `over`, and once more."""
        last = False
        while not last:
            last = over.wait(LOOK_EVERY)
            try:
                self._look()
            except Exception as error:  # news are never worth a run
                self._log(f"the news could not be told: {error}")

    def _look(self) -> None:
        if self._reader is None:
            prefix = f"{Keys(self._run_id).prefix}told/"
            self._told |= {item.key.removeprefix(prefix) for item in self._bucket.list(prefix)}
            self._reader = self._open()
        view = self._reader.read()
        for item in news_of(view, self._told):
            if self._claim(item):
                send(item, self._run_id, self._targets, self._log)
            self._told.add(item.key)
        taken = (i.instance_id for i in view.facts.instances if i.end_reason in EC2_INTERRUPTED)
        self._told |= {f"interrupted-{instance_id}" for instance_id in taken}

    def _claim(self, item: News) -> bool:
        key = f"{Keys(self._run_id).prefix}told/{item.key}"
        try:
            self._bucket.put(key, os.urandom(16), if_none_match=True)
        except PreconditionFailed:
            return False
        return True


def send(item: News, run_id: str, targets: Targets, log: Log) -> None:
    """Send one message to every target; what fails is logged. The webhook's URL, a secret, never is."""
    if targets.webhook:
        for left in reversed(range(TRIES)):
            fault = post(targets.webhook, item.text)
            if fault is None:
                break
            log(f"the webhook was not told that {item.text}: {fault}" + ("; trying again" if left else ""))
    if targets.command:
        fault = run_command(targets.command, {"ORCH_EVENT": item.event, "ORCH_RUN": run_id, "ORCH_TEXT": item.text})
        if fault is not None:
            log(f"notify_command failed: {fault}")


def post(url: str, text: str) -> str | None:
    """Post `{"text": ...}`, as Slack's incoming webhooks want it; return what went wrong, if anything did."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    body = json.dumps({"text": escaped}).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - see config
        with urllib.request.urlopen(request, timeout=SEND_SECONDS):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except (OSError, ValueError) as error:
        return type(error).__name__


def run_command(command: str, variables: dict[str, str]) -> str | None:
    """Run a shell command with what happened in its environment; return what went wrong, if anything did."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = process.wait(SEND_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"it took longer than {SEND_SECONDS:.0f} s and was killed"
    return None if code == 0 else f"it ended with {code}"
