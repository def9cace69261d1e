"""One agent, ticked by hand, with S3 as a folder: what it says, when it says it, and that nothing stops it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.agent import main as module
from orchestrator.agent.beacon import AT_LEAST_EVERY, Heart
from orchestrator.agent.config import NodeConfig
from orchestrator.agent.imds import Metadata as Client
from orchestrator.agent.local import Local, observe
from orchestrator.agent.main import Agent, run
from orchestrator.agent.notice import ADVICE, PATH, read_notice
from orchestrator.agent.store import Opener
from orchestrator.core.beacon import Beacon
from orchestrator.core.ids import Keys
from orchestrator.core.units import iso
from orchestrator.errors import Unreachable
from tests.agent.agent_world import PATHS, RUN, FolderStore, node_config
from tests.node.fake_aws import Metadata, serve_metadata

KEYS = Keys(RUN)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "s3")


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with serve_metadata() as made:
        yield made


class Clock:
    """Time that tests move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def beacon_of(store: FolderStore) -> Beacon:
    return Beacon.from_json(store.get(KEYS.beacon("i-0")))


def write(home: Path, relative: str, text: str) -> None:
    (home / relative).parent.mkdir(parents=True, exist_ok=True)
    (home / relative).write_text(text)


def test_node_json_is_read_as_the_start_command_writes_it(tmp_path: Path) -> None:
    from orchestrator.node.start import DataSource, node_json
    from tests.node.node_host import config

    file = tmp_path / "node.json"
    sent = config(
        "true", data=(DataSource("sets", "s3://b/p/q", "m"),), restore_step=7, trained=True, secrets={"A": "it's\nb"}
    )
    file.write_text(node_json(sent))
    read = NodeConfig.load(file, tmp_path)
    assert (read.run, read.generation, read.rank, read.num_nodes) == (sent.run, 1, 0, 1)
    assert (read.instance_id, read.bucket, read.region) == (sent.instance_id, sent.bucket, sent.region)
    assert (read.data[0].bucket, read.data[0].prefix, read.data[0].mount) == ("b", "p/q/", "m")
    assert (read.restore_step, read.trained, read.linger_seconds, read.beacon_seconds) == (7, True, 600.0, 2.0)
    assert read.grace_seconds == sent.grace.total_seconds()
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"no node\.json"):
        NodeConfig.load(file, tmp_path)


def test_the_beacon_says_when_the_machines_timer_ends_it_and_the_training_is_stopped_in_time(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(time, "time", lambda: 1790000000.0 + clock.now)
    config = node_config(tmp_path, grace_seconds=30.0)
    write(tmp_path, PATHS.stage_file, "running\n")
    write(tmp_path, PATHS.deadline, f"{1790000100 + int(clock.now)}\n")
    os.utime(tmp_path / PATHS.deadline, (1789990000, 1789990000))
    agent, stop = Agent(config, Opener(lambda: store), lambda: None), tmp_path / PATHS.stop
    agent.tick()
    assert (beacon_of(store).deadline, beacon_of(store).due) == (1790000100 + int(clock.now), False)
    assert not stop.exists()
    clock.now += 51
    agent.tick()
    assert (beacon_of(store).due, stop.exists()) == (True, True)


def test_the_beacon_follows_the_training_to_its_end(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    config = node_config(tmp_path, linger_seconds=100.0)
    off: list[float] = []
    agent = Agent(config, Opener(lambda: store), lambda: off.append(clock.now))
    agent.tick()
    assert (beacon_of(store).stage, beacon_of(store).epoch) == ("starting", 0)
    write(tmp_path, PATHS.epoch, "3\n")
    write(tmp_path, PATHS.stage_file, "running\n")
    write(tmp_path, PATHS.started_file, "1790000000.5\n")
    write(tmp_path, PATHS.progress, '{"step": 5, "loss": 0.1}\n{"event": "stopped", "step": 6}\n')
    config.run_log.write_text("epoch 1\n")
    agent.tick()
    seen = beacon_of(store)
    assert (seen.stage, seen.epoch, seen.started, seen.stopped_step) == ("running", 3, 1790000000.5, 6)
    assert seen.progress == {"event": "stopped", "step": 6}
    assert seen.tail == ("epoch 1",)
    write(tmp_path, PATHS.exit_file, "1 running\n")
    os.utime(tmp_path / PATHS.exit_file, (1790000100, 1790000100))
    agent.tick()
    seen = beacon_of(store)
    assert (seen.stage, seen.exit_code, seen.exit_stage, seen.synced) == ("exited", 1, "running", False)
    assert seen.exit_time == "2026-09-21T14:15:00Z"
    assert off == []
    settle(agent)
    agent.tick()
    assert beacon_of(store).synced
    assert json.loads(store.get(KEYS.metrics).splitlines()[0])["step"] == 5
    clock.now += 99
    agent.tick()
    write(tmp_path, PATHS.epoch, "4\n")  # a scheduler came by
    agent.tick()
    clock.now += 99
    agent.tick()
    assert off == []
    clock.now += 1
    agent.tick()
    assert off == [1199.0 + 0.0]
    agent.tick()
    assert len(off) == 1


def test_a_survivor_that_waits_long_for_a_replacement_is_not_turned_off(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, off = Clock(monkeypatch), list[float]()
    agent = Agent(node_config(tmp_path, linger_seconds=100.0), Opener(lambda: store), lambda: off.append(clock.now))
    write(tmp_path, PATHS.exit_file, "143 running\n")
    agent.tick()
    settle(agent)

    def lease(ends_in: float) -> None:
        ends = iso(datetime.now(UTC) + timedelta(seconds=ends_in))
        store.put(KEYS.lease, json.dumps({"owner": {}, "epoch": 1, "expires": ends}).encode())

    lease(15)
    for _ in range(5):
        clock.now += 99
        agent.tick()
    assert off == []
    lease(-100)
    for _ in range(2):
        clock.now += 99
        agent.tick()
    assert len(off) == 1
    store.put(KEYS.lease, b"[]")
    clock.now += 101
    agent.tick()
    assert len(off) == 2, "what cannot be read is held by nobody"
    store.failures = 10**6
    clock.now += 101
    with pytest.raises(Unreachable):
        agent.tick()
    assert len(off) == 3, "nor what S3 does not give"


def settle(agent: Agent) -> None:
    """Let the uploads come to their end."""
    agent.sync.start()
    for _ in range(500):
        if agent.sync.done:
            break
        threading.Event().wait(0.01)
    agent.sync.close()
    assert agent.sync.done


def test_the_last_line_of_a_training_is_uploaded_however_late_it_was_written(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(node_config(tmp_path), Opener(lambda: store), lambda: None)

    def end_just_now(config: NodeConfig) -> Local:
        write(tmp_path, PATHS.progress, '{"step": 9}\n')
        write(tmp_path, PATHS.exit_file, "0 running\n")
        return observe(config)

    monkeypatch.setattr(module, "observe", end_just_now)
    agent.tick()
    settle(agent)
    assert json.loads(store.get(KEYS.metrics))["step"] == 9


def test_a_training_that_vanished_is_lost(tmp_path: Path, store: FolderStore) -> None:
    agent = Agent(node_config(tmp_path), Opener(lambda: store), lambda: None)
    write(tmp_path, PATHS.stage_file, "running\n")
    write(tmp_path, PATHS.pid_file, "999999999\n")
    agent.tick()
    assert beacon_of(store).stage == "lost"


def test_a_beacon_is_sent_at_once_for_news_soon_for_progress_and_now_and_then_anyway(
    tmp_path: Path, store: FolderStore
) -> None:
    heart = Heart(node_config(tmp_path), "boot")
    one = heart.compose("running", Local(), NOW)
    assert heart.beat(store, one, 0)
    assert not heart.beat(store, replace(one, time="later"), 1)
    assert heart.beat(store, replace(one, notice="soon"), 1)
    step = replace(one, notice="soon", progress={"step": 1})
    assert not heart.beat(store, step, 2)
    assert heart.beat(store, step, 3)
    assert not heart.beat(store, step, 3 + AT_LEAST_EVERY - 0.1)
    assert heart.beat(store, step, 3 + AT_LEAST_EVERY)


def test_a_beacon_says_for_a_minute_how_late_the_latest_was(store: FolderStore, tmp_path: Path) -> None:
    heart = Heart(node_config(tmp_path), "boot")
    one = heart.compose("running", Local(word="running"), NOW)

    def late(now: float) -> float:
        assert heart.beat(store, one, now)
        return beacon_of(store).late

    assert [late(now) for now in (100, 103, 110.5, 113.5)] == [0, 0, 4.5, 4.5], "the first one is not late"
    assert [late(now) for now in range(117, 170, 3)] == [4.5] * 18
    assert late(171) == 0.5


def test_a_beacon_that_did_not_arrive_is_sent_again(tmp_path: Path, store: FolderStore) -> None:
    agent = Agent(node_config(tmp_path), Opener(lambda: store), lambda: None)
    store.failures = 1
    with pytest.raises(Exception, match="S3 is away"):
        agent.tick()
    agent.tick()
    assert beacon_of(store).stage == "starting"


def test_the_beacon_tells_how_far_staging_is_and_no_secret(tmp_path: Path, store: FolderStore) -> None:
    config = node_config(tmp_path)
    write(tmp_path, PATHS.secrets_file, "export TOKEN='s3 cr3t'\n")
    config.staging_file.write_text('{"staged": 5, "to_stage": 9, "phases": [[4, 4], [1, 5]], "rate": 3}')
    config.run_log.write_text("token is s3 cr3t\n")
    write(tmp_path, PATHS.progress, '{"step": 1, "note": "s3 cr3t"}\n')
    agent = Agent(config, Opener(lambda: store), lambda: None)
    agent.tick()
    seen = beacon_of(store)
    assert (seen.staged, seen.to_stage, seen.tail) == (5, 9, ("token is ***",))
    assert (seen.phases, seen.stage_rate) == (((4, 4), (1, 5)), 3)
    assert seen.progress == {"step": 1, "note": "***"}


def test_whatever_a_tick_runs_into_the_agent_goes_on(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, metadata: Metadata
) -> None:
    monkeypatch.setattr(module, "TICK", 0.01)
    agent = Agent(node_config(tmp_path), Opener(lambda: store), lambda: None)
    closed = threading.Event()
    ticks: list[int] = []
    tick = agent.tick

    def broken() -> None:
        ticks.append(1)
        if len(ticks) < 5:
            raise RuntimeError("boom")
        if len(ticks) > 6:
            closed.set()
        tick()

    monkeypatch.setattr(agent, "tick", broken)
    run(agent, Client(metadata.endpoint), closed)
    assert len(ticks) == 7
    assert beacon_of(store).stage == "starting"


def test_ec2s_notice_is_in_the_next_beacon(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, metadata: Metadata
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.01)
    agent = Agent(node_config(tmp_path), Opener(lambda: store), lambda: None)
    metadata.failures = [500, 503]
    watching = threading.Thread(target=agent.watch_for_notice, args=(Client(metadata.endpoint), threading.Event()))
    watching.start()
    agent.tick()
    assert beacon_of(store).notice is None
    metadata.pages[PATH] = '{"action": "terminate", "time": "2026-01-01T00:02:00Z"}'
    watching.join(10)
    agent.tick()
    assert beacon_of(store).notice == "2026-01-01T00:02:00Z"


def test_at_a_notice_the_stop_file_appears_even_while_s3_is_away(tmp_path: Path, store: FolderStore) -> None:
    write(tmp_path, PATHS.stage_file, "running\n")
    agent = Agent(node_config(tmp_path), Opener(lambda: store), lambda: None)
    agent.tick()
    assert not (tmp_path / PATHS.stop).exists()
    agent.notice, store.failures = "2026-01-01T00:02:00Z", 1
    with pytest.raises(Exception, match="S3 is away"):
        agent.tick()
    assert (tmp_path / PATHS.stop).exists()


def test_ec2s_advice_is_passed_on_to_the_training_once(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, metadata: Metadata
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.01)
    write(tmp_path, PATHS.stage_file, "running\n")
    agent, closed = Agent(node_config(tmp_path), Opener(lambda: store), lambda: None), threading.Event()
    metadata.pages[ADVICE] = '{"noticeTime": "2026-01-01T00:01:00Z"}'
    watching = threading.Thread(target=agent.watch_for_notice, args=(Client(metadata.endpoint), closed), daemon=True)
    watching.start()
    for _ in range(1000):
        if agent.advice is not None:
            break
        time.sleep(0.01)
    for file_is_there in (True, False):
        agent.tick()
        assert (tmp_path / PATHS.save).exists() == file_is_there
        (tmp_path / PATHS.save).unlink(missing_ok=True)
    assert beacon_of(store).advice == "2026-01-01T00:01:00Z"
    assert watching.is_alive(), "the notice may still come"
    closed.set()
    watching.join(10)


def test_metadata_is_asked_with_a_token_that_is_renewed(metadata: Metadata) -> None:
    client = Client(metadata.endpoint + "/")
    assert client.get("meta-data/instance-id") == "i-0abc"
    metadata.token = "token-2"
    assert client.get("meta-data/instance-id") == "i-0abc"
    assert client.get("meta-data/nothing") is None
    assert read_notice(client) is None
    metadata.pages[PATH] = "soon, in no JSON"
    assert read_notice(client) == "soon, in no JSON"
    metadata.failures = [503]
    with pytest.raises(OSError, match="503"):
        client.get("meta-data/instance-id")
    with pytest.raises(OSError, match="refused"):
        Client("http://127.0.0.1:1").get("x")


def test_a_second_agent_of_a_generation_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    config = node_config(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(NodeConfig, "load", lambda *_: config)
    with (config.folder / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert module.main(["node.json"]) == 0
    assert "another agent" in capsys.readouterr().out


def test_turning_off_goes_through_sudo_for_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: called.append(command))
    for user in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        module.power_off()
    assert called == [["shutdown", "-P", "now"], ["sudo", "-n", "shutdown", "-P", "now"]]


def test_the_store_is_opened_once_and_again_after_a_failure() -> None:
    made: list[int] = []

    def make() -> FolderStore:
        made.append(1)
        if len(made) == 1:
            raise OSError("no credentials yet")
        return FolderStore(Path("/tmp"))

    once = Opener(make)
    with pytest.raises(OSError, match="yet"):
        once()
    assert once() is once()
    assert len(made) == 2
    once.forget()
    once()
    assert len(made) == 3
