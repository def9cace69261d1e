"""The parts of a run are put together by one command at a time, and what another one does then is left alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.uploads import Uploads
from orchestrator.datasets import build, joining
from orchestrator.datasets.joining import Packing, is_packed, join
from orchestrator.datasets.order import Order
from orchestrator.datasets.origin import Row, list_source, origin_of
from orchestrator.errors import NoPermission, OrchError
from orchestrator.run.datasets import find
from orchestrator.run.lease import Lease, Owner
from tests.datasets.noted import Noted
from tests.datasets.parts import PIECES, leave_parts

RUN = "build-photos-20261127-120000-abcd"


@pytest.fixture
def packing(session: Session, bucket: Bucket) -> Packing:
    """What the nodes of a run packed."""
    bucket.put("elsewhere/photos/train/n00/a.jpg", b"an image")
    order = Order(
        name="photos",
        source=f"s3://{bucket.name}/elsewhere/photos",
        as_is=False,
        originals=True,
        arguments=(),
        home=Path("/nowhere"),
    )
    leave_parts(bucket, RUN)
    return Packing(RUN, order, origin_of(order, list_source(order, session)))


class Held(Noted):
    """Progress that waits where the first bytes are through, until `goes_on`; `began` says that it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.goes_on = threading.Event(), threading.Event()

    def at(self, stage: str, done: int, total: int) -> None:
        self.began.set()
        assert self.goes_on.wait(60)
        super().at(stage, done, total)


class Waiting(Noted):
    """Progress that lets another one go on as soon as it says that it waits for it."""

    def __init__(self, other: Held) -> None:
        super().__init__()
        self._other = other

    def say(self, text: str) -> None:
        super().say(text)
        self._other.goes_on.set()


def test_of_two_commands_at_once_the_second_waits_and_finds_what_the_first_made(
    session: Session, bucket: Bucket, packing: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "PAUSE", 0.02)
    first = Held()
    second = Waiting(first)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(join, packing, session, bucket, datetime.now(UTC), first)
        assert first.began.wait(60)
        other = pool.submit(join, packing, session, bucket, datetime.now(UTC), second)
        made, found = one.result(), other.result()
    assert (made.fresh, made.moved) == (True, made.dataset.size)
    assert (found.fresh, found.moved, found.dataset) == (False, 0, made.dataset)
    assert [f"puts {RUN} together" in line for line in second.said] == [True]
    assert bucket.get(f"{made.dataset.prefix}train/images.bin") == b"".join(PIECES)
    assert not is_packed(bucket, RUN)
    with pytest.raises(OrchError, match=f"the parts of {RUN} are not there any more"):
        join(Packing(RUN, packing.order, origin_of(packing.order, [])), session, bucket, datetime.now(UTC), Noted())


def test_a_killed_one_is_taken_over_from_and_a_later_one_left_alone(
    session: Session, bucket: Bucket, packing: Packing
) -> None:
    uploads, client = Uploads(session, bucket.name), session.client("s3")
    with pytest.raises(ZeroDivisionError):
        join(packing, session, bucket, datetime.now(UTC), Killed(lambda: 1 / 0))
    (prefix,) = bucket.list_folders("datasets/photos/")
    dead = Owner(Owner.me().machine, 2**22 + 1, "gone")
    assert Lease(bucket, RUN, dead).try_acquire(bucket.server_time())
    client.create_multipart_upload(Bucket=bucket.name, Key=f"{prefix}train/images.bin")
    later = Killed(lambda: client.create_multipart_upload(Bucket=bucket.name, Key=f"{prefix}later"))
    built = join(packing, session, bucket, datetime.now(UTC), later)
    assert built.dataset.prefix == prefix
    assert built.kept > 0, "what the killed one had put there is not put there again"
    assert {item.key for item in uploads.pending(prefix)} == {f"{prefix}later"}
    assert find(session, bucket, "photos") == built.dataset
    leave_parts(bucket, RUN)
    anew = join(replace(packing, anew=True), session, bucket, datetime.now(UTC), Noted())
    assert (anew.moved, anew.kept) == (built.dataset.size, 0)


class Killed(Noted):
    """Progress that does something at the first bytes, such as failing."""

    def __init__(self, what: object) -> None:
        super().__init__()
        self._what = what

    def at(self, stage: str, done: int, total: int) -> None:
        if not self.stages:
            assert callable(self._what)
            self._what()
        super().at(stage, done, total)


def test_a_source_that_changed_meanwhile_is_no_origin(session: Session, bucket: Bucket, packing: Packing) -> None:
    bucket.put("elsewhere/photos/train/n00/a.jpg", b"another!")
    progress = Noted()
    built = join(packing, session, bucket, datetime.now(UTC), progress)
    assert built.dataset.manifest is not None
    assert built.dataset.manifest.origin is None
    assert ["was changed meanwhile" in line for line in progress.said] == [True]
    with pytest.raises(OrchError, match="are not there any more") as caught:
        join(packing, session, bucket, datetime.now(UTC), Noted())
    assert f"{built.dataset.reference} is there, made of {packing.order.source}" in caught.value.hint


@pytest.mark.parametrize("known", [True, False])
def test_where_nobody_can_tell_whether_it_changed_that_is_not_said(
    session: Session, bucket: Bucket, packing: Packing, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    def denied(*_: object) -> tuple[Row, ...]:
        raise NoPermission("s3:ListBucket is denied", "ask for it")

    monkeypatch.setattr(build, "list_source", denied)
    origin = packing.origin if known else replace(packing.origin, source="")
    progress = Noted()
    built = join(replace(packing, origin=origin), session, bucket, datetime.now(UTC), progress)
    assert built.dataset.manifest is not None
    assert built.dataset.manifest.origin is None
    told = [line for line in progress.said if packing.order.source in line]
    assert [("may not be listed" in line, "was changed" in line) for line in told] == ([(True, False)] if known else [])
