"""Builds of the same order here: one at a time, and what was refused leaves nothing."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.datasets.build import Built, build
from orchestrator.datasets.order import Order
from orchestrator.errors import BadInput
from tests.datasets.noted import Builder, Noted, write


class Meeting(Noted):
    """Progress of a build during which `other` is begun, and waits or ends before this one goes on."""

    def __init__(self, other: Noted) -> None:
        super().__init__()
        self._other = other
        self.pool = ThreadPoolExecutor(1)
        self.second: Future[Built] | None = None
        self.start: object = None

    def say(self, text: str) -> None:
        super().say(text)
        assert callable(self.start)
        self.second = self.pool.submit(self.start)
        while not (self._other.said or self.second.done()):
            time.sleep(0.01)


def test_a_second_build_waits_for_the_first_and_finds_it_done(tmp_path: Path, session: Session, bucket: Bucket) -> None:
    order = Order(
        name="twice",
        source=str(write(tmp_path / "set", {"a": b"one"})),
        as_is=True,
        originals=True,
        arguments=(),
        home=tmp_path / "building",
    )
    later = Noted()
    meeting = Meeting(later)
    meeting.start = lambda: build(order, session, bucket, datetime.now(UTC), later)
    with meeting.pool:
        first = build(order, session, bucket, datetime.now(UTC), meeting)
    assert meeting.second is not None
    second = meeting.second.result()
    assert (first.fresh, second.fresh, second.dataset.version) == (True, False, first.dataset.version)
    assert later.said == ["another `orch dataset build` is at twice here; waiting for its end"]
    assert not any(order.home.iterdir()), "neither a work folder nor a lock is left"


def test_what_was_refused_leaves_no_work_folder_and_what_was_begun_does(
    tmp_path: Path, build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, empty = tmp_path / "building", tmp_path / "none"
    empty.mkdir()
    for as_is in (True, False):
        with pytest.raises(BadInput, match=r"holds no files|cannot be packed"):
            build(empty if as_is else write(tmp_path / "texts", {"a": b"a"}), "x", as_is=as_is)
        assert not any(home.iterdir())
    source = write(tmp_path / "set", {"a": b"one", "new\nline": b"", "in/b": b""})
    (source / "in/link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="has files that cannot be in a data set") as refused:
        build(source, "x")
    assert refused.value.details == (
        "'new\\nline': its name cannot be printed",
        f"in/link: a link to {tmp_path}/nowhere, which is not there",
    )
    assert not any(home.iterdir())
    for name in ("new\nline", "in/link"):
        (source / name).unlink()
    with monkeypatch.context() as killed, pytest.raises(ZeroDivisionError):
        killed.setattr("orchestrator.datasets.build.upload", lambda *_, **__: 1 / 0)
        build(source, "x")
    (work,) = home.iterdir()
    assert (work / "digests.json").exists()
    work.with_name(f".{work.name}.lock").touch()  # as one that was killed leaves it
    assert build(source, "x").fresh
    assert not any(home.iterdir())
