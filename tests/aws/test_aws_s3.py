from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.aws import s3
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.ids import bucket_name
from orchestrator.errors import NotFound, OrchError, PreconditionFailed
from tests.aws.aws_wire import Wire


@pytest.fixture
def bucket(session: Session) -> Bucket:
    session.client("s3").create_bucket(Bucket="runs-here")
    return Bucket(session, "runs-here")


def test_what_was_put_is_got_with_its_etag(bucket: Bucket) -> None:
    etag = bucket.put("a/b", b"hello")
    assert bucket.get("a/b") == b"hello"
    assert bucket.get_with_etag("a/b") == (b"hello", etag)


def test_an_object_that_is_not_there_is_not_found_by_name(bucket: Bucket) -> None:
    with pytest.raises(NotFound, match="s3://runs-here/nothing does not exist"):
        bucket.get("nothing")
    assert bucket.head("nothing") is None


def test_a_bucket_that_is_not_there_is_said_to_be_missing(session: Session) -> None:
    missing = Bucket(session, "never-made")
    with pytest.raises(NotFound, match="there is no bucket never-made"):
        missing.get("x")
    with pytest.raises(NotFound, match="there is no bucket never-made"):
        missing.list("runs/")
    with pytest.raises(NotFound, match="there is no bucket never-made"):
        missing.list_folders("runs/")
    assert told(missing) == "check its name with `aws s3 ls`", "nobody makes a bucket of this name"
    assert "`orch launch` makes it" in told(Bucket(session, bucket_name("123456789012", "us-east-1")))


def told(missing: Bucket) -> str:
    with pytest.raises(NotFound) as caught:
        missing.get("x")
    return caught.value.hint


def test_of_many_who_create_one_object_one_wins(bucket: Bucket) -> None:
    start = threading.Barrier(8)

    def create(number: int) -> bool:
        start.wait()
        try:
            bucket.put("once", str(number).encode(), if_none_match=True)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    assert bucket.get("once") == str(won.index(True)).encode()


def test_a_swap_over_an_old_etag_loses(bucket: Bucket) -> None:
    first = bucket.put("lease", b"1")
    second = bucket.put("lease", b"2", if_match=first)
    with pytest.raises(PreconditionFailed, match="s3://runs-here/lease"):
        bucket.put("lease", b"3", if_match=first)
    assert bucket.get_with_etag("lease") == (b"2", second)


def test_a_swap_over_a_deleted_object_loses(bucket: Bucket) -> None:
    etag = bucket.put("lease", b"1")
    bucket.delete("lease")
    with pytest.raises(PreconditionFailed):
        bucket.put("lease", b"2", if_match=etag)


def test_a_conflict_of_conditional_writes_is_repeated(
    bucket: Bucket, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    wire.fail("PUT /runs-here/lease", "ConditionalRequestConflict", status=409, times=2)
    bucket.put("lease", b"1", if_none_match=True)
    assert bucket.get("lease") == b"1"


def test_our_own_write_whose_reply_was_lost_counts_as_written(
    bucket: Bucket, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    wire.lose_reply("PUT /runs-here/entry")
    etag = bucket.put("entry", b"mine", if_none_match=True)
    assert bucket.get_with_etag("entry") == (b"mine", etag)
    assert wire.count("PUT /runs-here/entry") == 2


def test_the_write_of_another_is_not_taken_for_our_own(
    bucket: Bucket, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    bucket.put("entry", b"theirs")
    wire.fail("PUT /runs-here/entry", "InternalError", status=500)
    with pytest.raises(PreconditionFailed):
        bucket.put("entry", b"mine", if_none_match=True)
    with pytest.raises(PreconditionFailed):
        bucket.put("entry", b"theirs", if_none_match=True)  # equal by chance, but nothing of ours was lost


def test_only_what_changed_is_fetched(bucket: Bucket) -> None:
    etag = bucket.put("beacon", b"1")
    assert bucket.get_if_changed("beacon", "") == (b"1", etag)
    assert bucket.get_if_changed("beacon", etag) is None
    newer = bucket.put("beacon", b"2")
    assert bucket.get_if_changed("beacon", etag) == (b"2", newer)
    with pytest.raises(NotFound):
        bucket.get_if_changed("nothing", etag)


def test_a_listing_reads_every_page_in_order(bucket: Bucket, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    monkeypatch.setattr(s3, "DELETE_BATCH", 4)
    for number in reversed(range(10)):
        bucket.put(f"many/{number}", b"x")
    found = bucket.list("many/")
    assert [item.key for item in found] == [f"many/{n}" for n in range(10)]
    assert wire.count("GET /runs-here") == 4
    assert bucket.delete_prefix("many/") == 10
    assert bucket.list() == ()


def test_a_listing_shows_what_head_shows(bucket: Bucket) -> None:
    etag = bucket.put("runs/a/x", b"12345")
    (item,) = bucket.list("runs/")
    assert (item.key, item.size, item.etag) == ("runs/a/x", 5, etag)
    assert item.last_modified.tzinfo is UTC
    assert bucket.head("runs/a/x") == item


def test_folders_are_listed_without_what_lies_in_them(bucket: Bucket) -> None:
    for key in ("runs/b/1", "runs/a/1", "runs/a/2", "runs/file", "other/c"):
        bucket.put(key, b"")
    assert bucket.list_folders("runs/") == ("runs/a/", "runs/b/")


def test_deleting_twice_is_done(bucket: Bucket) -> None:
    bucket.put("x", b"")
    bucket.delete("x")
    bucket.delete("x")
    assert bucket.list() == ()


def test_no_prefix_does_not_mean_everything(bucket: Bucket) -> None:
    with pytest.raises(ValueError, match="whole bucket"):
        bucket.delete_prefix("")


def test_an_object_that_s3_does_not_delete_is_reported(bucket: Bucket, wire: Wire) -> None:
    bucket.put("keep/x", b"")
    body = b"<DeleteResult><Error><Key>keep/x</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    wire.fail_with("POST /runs-here", (200, "text/xml", body))
    with pytest.raises(OrchError, match="keep/x was not deleted: AccessDenied"):
        bucket.delete_prefix("keep/")


def test_large_files_travel_in_parts_and_arrive_whole(
    bucket: Bucket, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 * s3.MIB)
    monkeypatch.setattr(s3, "MULTIPART_FROM", 5 * s3.MIB)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(12 * s3.MIB))
    sent: list[int] = []
    got: list[int] = []
    bucket.upload_file(source, "large", sent.append)
    bucket.download_file("large", target, got.append)
    assert target.read_bytes() == source.read_bytes()
    assert (sum(sent), sum(got)) == (12 * s3.MIB, 12 * s3.MIB)
    assert wire.count("PUT /runs-here/large") == 3
    assert wire.count("GET /runs-here/large") == 3


def test_many_files_come_at_once(bucket: Bucket, tmp_path: Path) -> None:
    for number in range(5):
        bucket.put(f"data/{number}", str(number).encode())
    bucket.download_files([(item.key, tmp_path / Path(item.key).name) for item in bucket.list("data/")])
    assert [(tmp_path / str(n)).read_text() for n in range(5)] == ["0", "1", "2", "3", "4"]


def test_a_range_is_read_of_one_version_of_an_object_only(bucket: Bucket) -> None:
    body = os.urandom(3 * s3.PIECE_BYTES + 17)
    etag = bucket.put("k", body)
    pieces = list(bucket.read("k", 5, len(body), etag))
    assert b"".join(pieces) == body[5:]
    assert max(map(len, pieces)) <= s3.PIECE_BYTES
    assert b"".join(bucket.read("k", 0, 1, "")) == body[:1]
    bucket.put("k", body[::-1])
    with pytest.raises(PreconditionFailed, match="s3://runs-here/k was changed meanwhile"):
        list(bucket.read("k", 0, 1, etag))
    with pytest.raises(NotFound, match="s3://runs-here/nothing does not exist"):
        list(bucket.read("nothing", 0, 1, ""))


def test_a_download_of_nothing_leaves_no_file(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        bucket.download_file("nothing", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_the_time_is_that_of_the_server_even_before_any_other_call(wire: Wire) -> None:
    from orchestrator.core.settings import Settings

    fresh = Session(Settings("test", "us-east-1", wire.endpoint, "a", "b"))
    now = Bucket(fresh, "never-made").server_time()
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=5)
    assert wire.calls == ["HEAD /never-made"]
