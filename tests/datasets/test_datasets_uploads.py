"""Large files in parts: an upload that was ended goes on, and takes over only parts that hold what they should."""

from __future__ import annotations

import base64
import hashlib
import threading
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws import uploads
from orchestrator.aws.s3 import MIB, Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.uploads import Pending, UploadEnded, Uploads, etag_of
from orchestrator.run import datasets
from orchestrator.run.gc import find_orphans, remove
from tests.datasets.noted import Builder, write

STEP = 5 * MIB  # the least that S3 takes for a part that is not the last


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PART_BYTES", STEP)
    monkeypatch.setattr(uploads, "MULTIPART_FROM", 2 * STEP)
    monkeypatch.setattr("orchestrator.datasets.upload.MULTIPART_FROM", 2 * STEP)


def large(path: Path) -> Path:
    """Write a file of three parts, each another."""
    path.write_bytes(b"".join(bytes([number]) * STEP for number in (1, 2)) + b"end")
    return path


def bodies(file: Path) -> list[bytes]:
    whole = file.read_bytes()
    return [whole[start : start + STEP] for start in range(0, len(whole), STEP)]


def test_an_upload_goes_on_and_a_part_that_is_wrong_is_sent_again(
    tmp_path: Path, session: Session, bucket: Bucket
) -> None:
    file, key = large(tmp_path / "file"), "large/file"
    client = session.client("s3")
    begun = client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
    client.create_multipart_upload(Bucket=bucket.name, Key="large/file-of-others")
    for number, body in ((1, bytes([1]) * STEP), (2, bytes([9]) * STEP)):
        client.upload_part(Bucket=bucket.name, Key=key, UploadId=begun, PartNumber=number, Body=body)
    told: list[Any] = []
    client.meta.events.register(
        "provide-client-params.s3.CompleteMultipartUpload", lambda params, **_: told.append(params)
    )
    sent: list[int] = []
    kept: list[int] = []
    Uploads(session, bucket.name).send(file, key, "d1", sent=sent.append, kept=kept.append)
    assert (sorted(sent), kept) == ([3, STEP], [STEP])
    assert bucket.get(key) == file.read_bytes()
    parts = told[0]["MultipartUpload"]["Parts"]
    checksums = [base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode() for body in bodies(file)]
    assert [part["ChecksumCRC32"] for part in parts] == checksums, "S3 refuses to complete an upload without"
    (other,) = Uploads(session, bucket.name).pending("large/")
    assert other.key == "large/file-of-others"
    Uploads(session, bucket.name).abort(other)
    Uploads(session, bucket.name).abort(other)
    assert Uploads(session, bucket.name).pending("large/") == ()


@pytest.mark.parametrize("completed", [True, False])
def test_an_upload_that_somebody_else_ends_is_done_where_the_object_is_there(
    tmp_path: Path, session: Session, bucket: Bucket, build: Builder, completed: bool
) -> None:
    name = "done-by-others" if completed else "given-up"
    (source := tmp_path / name).mkdir()
    file = large(source / "file")
    others = Uploads(Session(session.settings), bucket.name)
    ended: list[str] = []
    once = threading.Lock()

    def end(params: Any, **_: Any) -> None:
        with once:
            if ended:
                return
            ended.append(params["Key"])
            if completed:
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                others.send(file, params["Key"], digest, sent=lambda _: None, kept=lambda _: None)
            else:
                others.abort(Pending(params["Key"], params["UploadId"], datetime.now(UTC)))

    events = session.client("s3").meta.events
    events.register("provide-client-params.s3.UploadPart", end)
    try:
        if not completed:
            with pytest.raises(UploadEnded, match=rf"{name}/.*/file was ended by somebody else"):
                build(source, name)
        assert build(source, name).dataset.state == "ready"
    finally:
        events.unregister("provide-client-params.s3.UploadPart", end)
    assert bucket.get(ended[0]) == file.read_bytes()
    assert Uploads(session, bucket.name).pending("datasets/") == ()


def test_the_tag_of_a_file_is_the_one_s3_gives_it(tmp_path: Path, session: Session, bucket: Bucket) -> None:
    files = {"empty": b"", "small": b"abc", "even": bytes(2 * STEP)}
    paths = [*write(tmp_path, files).iterdir(), large(tmp_path / "large")]
    for path in paths:
        if path.stat().st_size >= 2 * STEP:
            Uploads(session, bucket.name).send(
                path, f"tags/{path.name}", "d1", sent=lambda _: None, kept=lambda _: None
            )
        else:
            bucket.upload_file(path, f"tags/{path.name}")
    assert {item.key: item.etag for item in bucket.list("tags/")} == {f"tags/{p.name}": etag_of(p) for p in paths}


def test_a_part_of_the_largest_object_is_not_more_than_s3_takes() -> None:
    for size in (0, 1, 160 * 2**30, 5 * 2**40):
        step = uploads.part_bytes(size)
        assert -(-size // step) <= 10_000
        assert step % MIB == 0


def test_a_build_that_stands_still_is_left_behind_and_a_finished_one_is_not(
    tmp_path: Path, session: Session, bucket: Bucket, build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = build(write(tmp_path / "set", {"a": b"one"}), "ready").dataset
    version = "0123456789abcdef"
    client, key = session.client("s3"), f"datasets/begun/{version}/images.bin"
    upload = client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
    client.upload_part(Bucket=bucket.name, Key=key, UploadId=upload, PartNumber=1, Body=b"part")
    (begun,) = datasets.list_datasets(session, bucket, "begun")
    assert (begun.state, begun.objects, begun.size) == ("unfinished", 0, 4)
    assert find_orphans(session, bucket) == [], "it may be under way"
    monkeypatch.setattr(datasets, "QUIET", -datasets.QUIET)
    orphans = find_orphans(session, bucket)
    assert [(item.kind, item.id) for item in orphans] == [("dataset", f"begun@{version}")]
    assert "orch dataset build" in orphans[0].why
    said: list[str] = []
    assert remove(session, bucket, orphans, said.append) == []
    assert said == [f"deleted dataset begun@{version}"]
    assert Uploads(session, bucket.name).pending("datasets/") == ()
    assert datasets.find(session, bucket, "ready") == ready
