"""The scheduler's loop against EC2 and S3 over HTTP, on machines that never boot: launches, lost replies, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.snapshots import Snapshots
from orchestrator.core.actions import Terminate
from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import Facts, Instance
from orchestrator.core.ids import Keys
from orchestrator.core.settings import Settings
from orchestrator.core.spec import RunSpec
from orchestrator.errors import OrchError, StaleEpoch
from orchestrator.run.foreground import REFUSED_FOR_GOOD, TakingScheduler
from orchestrator.run.gc import find_orphans, remove
from orchestrator.run.home import Home
from orchestrator.run.lease import LIFETIME
from orchestrator.run.ledger import Ledger
from orchestrator.run.loop import Scheduler, run_scheduler
from orchestrator.run.prepare import Source, begin, prepare
from orchestrator.run.read import read_run
from orchestrator.run.wish import ask_stop
from orchestrator.sandbox.cloud import SandboxCloud
from orchestrator.sandbox.faults import REPLY_LOST


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


Launcher = Callable[..., tuple[RunSpec, Bucket]]


@pytest.fixture
def launched(session: Session, settings: Settings, home: Home, tmp_path: Path) -> Launcher:
    def launch(name: str, **keys: Any) -> tuple[RunSpec, Bucket]:
        values = {
            "name": name,
            "num_nodes": 3,
            "resources": {"any_of": [{"instance_type": "p3.16xlarge"}], "disk_size": 8},
            "device": "cpu",
            "run": "hostname",
            "max_duration": "1h",
        }
        experiment = Experiment.from_json(values | keys)
        prepared = prepare(experiment, Source(name, tmp_path / "x.yaml"), session, settings, environ={})
        spec = begin(prepared, session, home, name=None, now=datetime.now(UTC))
        return spec, Bucket(session, spec.bucket)

    return launch


def states(session: Session, spec: RunSpec) -> list[str]:
    return [item.state for item in Compute(session).instances(spec.run_id)]


def test_a_run_that_is_stopped_while_it_boots_leaves_nothing(session: Session, home: Home, launched: Launcher) -> None:
    spec, bucket = launched("boots")
    worker = threading.Thread(target=run_scheduler, args=(session, bucket, home, spec.run_id, lambda _: None))
    worker.start()
    end = time.monotonic() + 30
    while states(session, spec) != ["running"] * 3 and time.monotonic() < end:
        time.sleep(0.1)
    live = {line.kind for line in read_run(session, bucket, spec.run_id).bill.other}
    assert live == {"ebs", "ipv4", "s3-requests", "s3-storage"}
    ask_stop(bucket, spec.run_id, "me")
    worker.join(30)
    assert not worker.is_alive()
    view = read_run(session, bucket, spec.run_id)
    assert (view.phase, view.bill.final, len(view.bill.instances)) == ("stopped", True, 3)
    assert states(session, spec) == ["terminated"] * 3
    assert Compute(session).resources(spec.run_id) == ()
    assert home.load_report(spec.run_id) == view.report()


def test_a_launch_whose_reply_was_lost_is_repeated_and_launches_once(
    session: Session, home: Home, launched: Launcher, cloud: SandboxCloud
) -> None:
    spec, bucket = launched("lost")
    cloud.add_fault("RunInstances", REPLY_LOST, 2)
    scheduler = Scheduler(session, bucket, home, spec.run_id, lambda _: None)
    worker = threading.Thread(target=scheduler.run)
    worker.start()
    end = time.monotonic() + 40
    while Ledger(bucket, spec.run_id, "test").read().launched is None and time.monotonic() < end:
        time.sleep(0.1)
    state = Ledger(bucket, spec.run_id, "test").read()
    assert state.launched is not None, state
    assert len(state.launches) == 1
    assert sorted(state.launched.instance_ids) == sorted(i.instance_id for i in Compute(session).instances(spec.run_id))
    assert len(state.launched.instance_ids) == 3
    ask_stop(bucket, spec.run_id, "me")
    worker.join(30)


def test_a_scheduler_that_slept_after_its_intent_launches_nothing(
    session: Session, home: Home, launched: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, bucket = launched("slept")
    sleeper, other = (Scheduler(session, bucket, home, spec.run_id, lambda _: None) for _ in range(2))
    assert sleeper._lease.try_acquire(bucket.server_time())
    append = sleeper._ledger.append

    def fall_asleep_then(kind: Any, what: str, *args: Any, **keys: Any) -> Any:
        entry = append(kind, what, *args, **keys)
        if what == "launch":
            assert other._lease.try_acquire(bucket.server_time() + 2 * LIFETIME)
            later = bucket.server_time() + 3 * LIFETIME
            monkeypatch.setattr(bucket, "server_time", lambda: later)
        return entry

    monkeypatch.setattr(sleeper._ledger, "append", fall_asleep_then)
    with pytest.raises(StaleEpoch):
        while True:
            sleeper._tick()
    assert states(session, spec) == []
    monkeypatch.undo()
    for scheduler in (sleeper, other):
        scheduler._actor.close()
    other._lease.release(bucket.server_time())
    ask_stop(bucket, spec.run_id, "me")
    run_scheduler(session, bucket, home, spec.run_id, lambda _: None)
    assert Compute(session).resources(spec.run_id) == ()


def test_one_intent_is_enough_for_machines_that_are_told_to_go_twice(
    session: Session, home: Home, launched: Launcher
) -> None:
    spec, bucket = launched("twice")
    scheduler = Scheduler(session, bucket, home, spec.run_id, lambda _: None)
    assert scheduler._lease.try_acquire(bucket.server_time())
    while not states(session, spec):
        scheduler._tick()
    facts = scheduler._observer.observe()
    ids = tuple(item.instance_id for item in facts.instances)
    for _ in range(3):
        scheduler._actor.perform(Terminate(ids, "test"), facts)
    assert [entry.action for entry in scheduler._ledger.entries].count("terminate") == 1
    ask_stop(bucket, spec.run_id, "me")
    scheduler.run()
    assert Compute(session).resources(spec.run_id) == ()


class TakesSnapshot(TakingScheduler):
    """Takes a snapshot of a volume that is not there, so that only faults are answered."""

    kind = "snapshot"

    def _take(self, instance: Instance, facts: Facts) -> None:
        Snapshots(self._made_of[0]).take("vol-0123456789abcdef0", {})


def test_what_ec2_refuses_in_words_that_nobody_knows_is_asked_for_again_but_not_for_ever(
    session: Session, home: Home, launched: Launcher, cloud: SandboxCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, bucket = launched("unheard-of", num_nodes=1)
    scheduler = TakesSnapshot(session, bucket, home, spec.run_id, lambda _: None)
    assert scheduler._lease.try_acquire(bucket.server_time())
    while not states(session, spec):
        scheduler._tick()
    facts = scheduler._observer.observe()
    cloud.add_fault("CreateSnapshot", "SnapshotsAreOut", 2)
    with pytest.raises(OrchError, match="SnapshotsAreOut"):
        scheduler._ask(facts)
    assert scheduler._refused is None
    later = bucket.server_time() + REFUSED_FOR_GOOD
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "server_time", lambda: later)
        scheduler._lease.renew(later)
        scheduler._ask(facts)
    assert scheduler._refused is not None
    assert scheduler._refused.kind == "failed"
    assert "EC2 makes no snapshot: ec2:CreateSnapshot failed: SnapshotsAreOut" in scheduler._refused.message
    scheduler._actor.close()
    scheduler._lease.release(bucket.server_time())
    ask_stop(bucket, spec.run_id, "me")
    run_scheduler(session, bucket, home, spec.run_id, lambda _: None)
    assert Compute(session).resources(spec.run_id) == ()


def test_a_second_scheduler_waits_and_then_says_that_the_run_has_ended(
    session: Session, home: Home, launched: Launcher
) -> None:
    spec, bucket = launched("double")
    first = threading.Thread(target=run_scheduler, args=(session, bucket, home, spec.run_id, lambda _: None))
    first.start()
    end = time.monotonic() + 30
    while not states(session, spec) and time.monotonic() < end:
        time.sleep(0.1)
    said: list[str] = []
    outcome: list[BaseException] = []

    def second() -> None:
        try:
            run_scheduler(session, bucket, home, spec.run_id, said.append)
        except StaleEpoch as error:
            outcome.append(error)

    other = threading.Thread(target=second)
    other.start()
    time.sleep(0.5)
    ask_stop(bucket, spec.run_id, "me")
    first.join(30)
    other.join(30)
    assert any("another scheduler" in line for line in said)
    assert len(outcome) == 1
    assert len(states(session, spec)) == 3


def test_a_run_whose_image_is_gone_ends_and_says_so(session: Session, home: Home, launched: Launcher) -> None:
    spec, bucket = launched("imageless")
    bucket.put(Keys(spec.run_id).spec, replace(spec, image="ami-0123456789abcdef0").to_json())
    worker = threading.Thread(target=run_scheduler, args=(session, bucket, home, spec.run_id, lambda _: None))
    worker.start()
    worker.join(30)
    view = read_run(session, bucket, spec.run_id)
    ask_stop(bucket, spec.run_id, "me")
    worker.join(30)
    assert (view.phase, states(session, spec)) == ("failed", [])
    assert "there is no image ami-0123456789abcdef0" in view.message


def test_what_a_run_without_scheduler_left_is_found_by_tag_and_removed(
    session: Session, home: Home, launched: Launcher
) -> None:
    spec, bucket = launched("orphan")
    scheduler = Scheduler(session, bucket, home, spec.run_id, lambda _: None)
    assert scheduler._lease.try_acquire(bucket.server_time())
    while not states(session, spec):
        scheduler._tick()
    assert [item for item in find_orphans(session, bucket) if item.run == spec.run_id] == [], "it has a scheduler"
    scheduler._lease.release(bucket.server_time())
    scheduler._actor.close()
    orphans = [item for item in find_orphans(session, bucket) if item.run == spec.run_id]
    assert sorted(item.kind for item in orphans) == [
        *["instance"] * 3,
        "key-pair",
        "placement-group",
        "security-group",
        *["spot-request"] * 3,
    ]
    assert remove(session, bucket, orphans, lambda _: None) == []
    assert [item for item in find_orphans(session, bucket) if item.run == spec.run_id] == []
