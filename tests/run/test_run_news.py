"""News of runs: which there are, once each, to a real HTTP server and a real shell, and never at a run's expense."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.facts import Instance
from orchestrator.core.ledger import Verdict
from orchestrator.run import notify
from orchestrator.run.news import News, news_of
from orchestrator.run.notify import Targets, run_command, send, telling
from orchestrator.run.view import RunView
from tests.core.worlds import facts
from tests.report.views import ended, gone_instance, launched, running, view

TAKEN = "Server.SpotInstanceTermination"
ITEM = News("end-1", "finished", "tiny <a> & b finished")


class Hook:
    """A webhook: it keeps the bodies it is sent and answers with the codes it is given, then 200."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, str]] = []
        self.codes: list[int] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.codes.pop(0) if hook.codes else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/services/secret"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def told(seen: RunView, *keys: str) -> list[tuple[str, str]]:
    return [(item.event, item.text) for item in news_of(seen, keys)]


def taken(*instances: Instance) -> RunView:
    return view(launched(2), facts(100, instances))


def test_the_end_of_a_run_is_news_with_time_and_money() -> None:
    [(event, text)] = told(ended(Verdict("finished", "all 2 nodes finished")))
    assert event == "finished"
    assert text.startswith("tiny-20261120-120000-abcd finished after 3m10s; $0.78, on-demand $2.59")
    [(event, text)] = told(ended(Verdict("failed", "node 1 exited with 3")))
    assert (event, "failed after 3m10s: node 1 exited with 3; $" in text) == ("failed", True)
    assert told(ended(Verdict("interrupted", "EC2 took it")))[0][0] == "interrupted"
    assert told(ended(Verdict("finished", "done")), "end-1") == []
    assert told(running()) == []


def test_nodes_that_ec2_took_together_are_one_message_and_each_is_told_once() -> None:
    seen = taken(gone_instance(0, 50, TAKEN), gone_instance(1, 50, TAKEN), gone_instance(2, 50))
    [item] = news_of(seen, ())
    assert (item.key, item.event) == ("interrupted-i-0", "interrupted")
    assert "EC2 took 2 nodes back (i-0, i-1)" in item.text
    assert "EC2 took 1 node back (i-1)" in news_of(seen, {"interrupted-i-0"})[0].text
    assert news_of(seen, {"interrupted-i-0", "interrupted-i-1"}) == []


@pytest.mark.parametrize(("cap", "percent"), [("0.80", 50), ("0.50", 80), ("0.42", 95), ("0.90", None), (None, None)])
def test_a_cap_is_near_at_50_80_and_95_percent(cap: str | None, percent: int | None) -> None:
    # Two nodes for 100 s at $7.344 an hour, and their volumes: $0.408618.
    seen = running(seconds=100)
    object.__setattr__(seen.spec, "experiment", seen.spec.experiment.model_copy(update={"max_cost": cap}))
    news = told(seen)
    assert [event for event, _ in news] == (["cap-near"] if percent else [])
    assert all(f"has cost $0.41, {percent}% of max_cost ${cap}" in text for _, text in news)
    assert news_of(seen, {item.key for item in news_of(seen, ())}) == []


def test_money_and_time_are_told_each_for_itself_and_again_once_a_cap_was_moved() -> None:
    seen = running(seconds=2900)
    first = told(seen)
    assert first == [("cap-near", f"{seen.spec.run_id} has lasted 48m20s, 80% of max_duration 1h00m")]
    object.__setattr__(seen.spec, "experiment", seen.spec.experiment.model_copy(update={"max_cost": "12"}))
    assert [text.partition("% of ")[2] for _, text in told(seen)] == ["max_cost $12.00", "max_duration 1h00m"]
    keys = {item.key for item in news_of(seen, ())}
    object.__setattr__(seen.spec, "experiment", seen.spec.experiment.model_copy(update={"max_cost": "14"}))
    assert [item.text.partition("% of ")[2] for item in news_of(seen, keys)] == ["max_cost $14.00"]


def test_a_webhook_gets_what_slack_wants_and_is_tried_again(hook: Hook) -> None:
    hook.codes = [500, 200]
    said: list[str] = []
    send(ITEM, "tiny", Targets(webhook=hook.url), said.append)
    assert hook.bodies == [{"text": "tiny &lt;a&gt; &amp; b finished"}] * 2
    assert [line.endswith("it answered 500; trying again") for line in said] == [True]
    hook.codes = [404] * 9
    send(ITEM, "tiny", Targets(webhook=hook.url), said.append)
    assert len(hook.bodies) == 2 + notify.TRIES
    assert "secret" not in " ".join(said)


def test_a_webhook_that_is_not_there_is_logged_and_no_more() -> None:
    said: list[str] = []
    send(ITEM, "tiny", Targets(webhook="http://127.0.0.1:1/secret"), said.append)
    assert len(said) == notify.TRIES
    assert "secret" not in " ".join(said)


def test_a_command_finds_the_news_in_its_environment(tmp_path: Path) -> None:
    said: list[str] = []
    command = f'echo "$ORCH_EVENT|$ORCH_RUN|$ORCH_TEXT" > {tmp_path}/said'
    send(ITEM, "tiny", Targets(command=command), said.append)
    assert (tmp_path / "said").read_text() == "finished|tiny|tiny <a> & b finished\n"
    send(ITEM, "tiny", Targets(command="exit 3"), said.append)
    assert said == ["notify_command failed: it ended with 3"]


def test_a_command_that_hangs_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notify, "SEND_SECONDS", 0.5)
    fault = run_command(f"sleep 60 & echo $! > {tmp_path}/child; wait", {})
    assert fault is not None
    assert "was killed" in fault
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    deadline = time.monotonic() + 20
    while alive(child):  # its end is init's to see, a moment after the signal
        assert time.monotonic() < deadline


def alive(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_news_are_told_once_whoever_schedules_and_a_fault_is_only_logged(
    session: Session, bucket: Bucket, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Read:
        def read(self) -> RunView:
            return ended(Verdict("finished", "done"))

    monkeypatch.setattr(notify, "Reader", lambda *_: Read())
    said: list[str] = []
    for _ in range(2):
        with telling(session, bucket, "tiny-20261120-120000-news", Targets(webhook=hook.url), said.append):
            pass
    assert len(hook.bodies) == 1
    assert said == []

    def broken(*_: object) -> Read:
        raise RuntimeError("no such run")

    monkeypatch.setattr(notify, "Reader", broken)
    with telling(session, bucket, "tiny-20261120-120000-none", Targets(webhook=hook.url), said.append):
        pass
    assert said == ["the news could not be told: no such run"]


def test_without_targets_nothing_is_started(session: Session, bucket: Bucket) -> None:
    before = threading.active_count()
    with telling(session, bucket, "tiny-20261120-120000-news", Targets(), print):
        assert threading.active_count() == before
