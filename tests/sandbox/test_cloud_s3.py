"""Conformance: S3 of the sandbox reads ranges by seeking, writes conditionally, and takes uploads of every framing."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from moto.s3.models import S3Backend

from orchestrator.sandbox import s3_ranges
from orchestrator.sandbox.s3_ranges import StoredBytes
from tests.sandbox.cloud_fixture import World, refusal, shared_world, world

__all__ = ["shared_world", "world"]

BUCKET = "orch-test-bucket"
MIB = 2**20


@pytest.fixture
def bucket(world: World) -> Iterator[Any]:
    """A client of a new bucket; the bucket is emptied and gone afterwards."""
    client = world.s3
    client.create_bucket(Bucket=BUCKET)
    yield client
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    for page in pages:
        for item in page.get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


def fetch(client: Any, key: str, **asked: Any) -> bytes:
    body: bytes = client.get_object(Bucket=BUCKET, Key=key, **asked)["Body"].read()
    return body


def test_a_range_of_a_large_object_is_read_by_seeking(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body = os.urandom(MIB) * 200
    bucket.put_object(Bucket=BUCKET, Key="large", Body=body)
    read: list[int] = []
    plain = StoredBytes._read

    def counted(self: StoredBytes, start: int, stop: int) -> bytes:
        read.append(stop - start)
        return plain(self, start, stop)

    monkeypatch.setattr(s3_ranges.StoredBytes, "_read", counted)
    first, last = 150 * MIB + 17, 153 * MIB
    reply = bucket.get_object(Bucket=BUCKET, Key="large", Range=f"bytes={first}-{last}")
    assert reply["Body"].read() == body[first : last + 1]
    assert reply["ContentRange"] == f"bytes {first}-{last}/{len(body)}"
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert not read, "the kernel sends it from the file"
    whole = bucket.get_object(Bucket=BUCKET, Key="large")["Body"]
    digest = hashlib.sha256()
    for chunk in whole.iter_chunks(MIB):
        digest.update(chunk)
    assert digest.digest() == hashlib.sha256(body).digest()
    assert not read


@pytest.mark.parametrize("size", [1000, 6 * MIB])
def test_ranges_are_those_of_s3(bucket: Any, size: int) -> None:
    body = os.urandom(size)
    bucket.put_object(Bucket=BUCKET, Key="k", Body=body)
    assert fetch(bucket, "k") == body
    assert fetch(bucket, "k", Range="bytes=0-0") == body[:1]
    assert fetch(bucket, "k", Range="bytes=10-") == body[10:]
    assert fetch(bucket, "k", Range="bytes=-7") == body[-7:]
    assert fetch(bucket, "k", Range=f"bytes=5-{size * 2}") == body[5:]
    beyond = refusal(lambda: fetch(bucket, "k", Range=f"bytes={size}-"))
    assert beyond[:2] == ("InvalidRange", 416)
    head = bucket.head_object(Bucket=BUCKET, Key="k")
    assert (head["ContentLength"], head["ETag"]) == (size, f'"{hashlib.md5(body).hexdigest()}"')  # noqa: S324 - S3's


def test_a_download_goes_on_when_its_object_is_replaced(bucket: Any) -> None:
    old, new = os.urandom(8 * MIB), os.urandom(8 * MIB)
    bucket.put_object(Bucket=BUCKET, Key="k", Body=old)
    stream = bucket.get_object(Bucket=BUCKET, Key="k")["Body"]
    start = stream.read(1000)
    bucket.put_object(Bucket=BUCKET, Key="k", Body=new)
    bucket.delete_object(Bucket=BUCKET, Key="k")
    assert start + stream.read() == old


def test_a_conditional_write_has_one_winner(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Backend.put_object

    def stored_slowly(*arguments: Any, **options: Any) -> Any:
        """Leave a gap between moto's check of the condition and the write."""
        time.sleep(0.01)
        return store(*arguments, **options)

    monkeypatch.setattr(S3Backend, "put_object", stored_slowly)

    def put(number: int) -> str:
        try:
            bucket.put_object(Bucket=BUCKET, Key="lease", Body=str(number).encode(), IfNoneMatch="*")
        except bucket.exceptions.ClientError as error:
            return str(error.response["Error"]["Code"])
        return "won"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(put, range(24)))
    assert sorted(set(outcomes)) == ["PreconditionFailed", "won"]
    assert outcomes.count("won") == 1
    etag = bucket.head_object(Bucket=BUCKET, Key="lease")["ETag"]
    bucket.put_object(Bucket=BUCKET, Key="lease", Body=b"renewed", IfMatch=etag)
    stale = refusal(lambda: bucket.put_object(Bucket=BUCKET, Key="lease", Body=b"late", IfMatch=etag))
    assert stale[:2] == ("PreconditionFailed", 412)
    assert fetch(bucket, "lease") == b"renewed"


def test_readers_see_whole_objects_while_they_are_overwritten(bucket: Any) -> None:
    stop, seen = threading.Event(), set()
    bucket.put_object(Bucket=BUCKET, Key="beacon", Body=b"0" * 500)

    def read() -> None:
        while not stop.is_set():
            body = fetch(bucket, "beacon")
            seen.add((len(body), len(set(body))))
            assert bucket.list_objects_v2(Bucket=BUCKET)["KeyCount"] >= 1

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for number in range(60):
            bucket.put_object(Bucket=BUCKET, Key="beacon", Body=str(number % 10).encode() * 500)
        stop.set()
        for reader in readers:
            reader.result()
    assert seen == {(500, 1)}


def test_large_files_go_up_in_parts_and_down_in_ranges(bucket: Any) -> None:
    body = os.urandom(MIB) * 20
    parts = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    bucket.upload_fileobj(io.BytesIO(body), BUCKET, "checkpoint", Config=parts)
    down = io.BytesIO()
    bucket.download_fileobj(BUCKET, "checkpoint", down, Config=parts)
    assert down.getvalue() == body
    assert bucket.head_object(Bucket=BUCKET, Key="checkpoint")["ETag"].endswith('-4"')


def test_an_upload_that_was_ended_takes_no_part_and_is_not_completed_or_aborted_again(bucket: Any) -> None:
    upload = bucket.create_multipart_upload(Bucket=BUCKET, Key="ended")["UploadId"]
    asked = {"Bucket": BUCKET, "Key": "ended", "UploadId": upload}
    tag = bucket.upload_part(**asked, PartNumber=1, Body=b"part")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
    bucket.complete_multipart_upload(**asked, MultipartUpload=parts)
    calls: list[Callable[[], Any]] = [
        lambda: bucket.upload_part(**asked, PartNumber=1, Body=b"part"),
        lambda: bucket.list_parts(**asked),
        lambda: bucket.complete_multipart_upload(**asked, MultipartUpload=parts),
        lambda: bucket.abort_multipart_upload(**asked),
    ]
    assert [refusal(call)[:2] for call in calls] == [("NoSuchUpload", 404)] * 4


def test_a_range_is_copied_of_objects_of_more_than_5_mib_only(bucket: Any) -> None:
    upload = bucket.create_multipart_upload(Bucket=BUCKET, Key="copy")["UploadId"]

    def copy(size: int) -> Any:
        bucket.put_object(Bucket=BUCKET, Key="from here", Body=b"x" * size)
        source = {"Bucket": BUCKET, "Key": "from here"}
        asked = {"Bucket": BUCKET, "Key": "copy", "UploadId": upload, "PartNumber": 1, "CopySource": source}
        return bucket.upload_part_copy(**asked, CopySourceRange="bytes=0-8")

    assert refusal(lambda: copy(5 * MIB))[0] == "InvalidRequest"
    assert copy(5 * MIB + 1)["CopyPartResult"]["ETag"]
    bucket.abort_multipart_upload(Bucket=BUCKET, Key="copy", UploadId=upload)


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256", "SHA1"])
def test_an_upload_with_a_checksum_is_stored_unframed(bucket: Any, algorithm: str) -> None:
    body = os.urandom(3 * MIB + 11)
    bucket.put_object(Bucket=BUCKET, Key="k", Body=io.BytesIO(body), ChecksumAlgorithm=algorithm)
    reply = bucket.get_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")
    assert reply["Body"].read() == body
    assert reply[f"Checksum{algorithm}"]
    assert reply.get("ContentEncoding", "") == ""


def test_a_false_checksum_is_refused(bucket: Any) -> None:
    for wrong in ({"ChecksumSHA256": "A" * 43 + "="}, {"ChecksumCRC32": "AAAAAA=="}, {"ContentMD5": "A" * 22 + "=="}):
        assert refusal(lambda w=wrong: bucket.put_object(Bucket=BUCKET, Key="k", Body=b"x", **w))[0] == "BadDigest"  # type: ignore[misc]
    assert refusal(lambda: fetch(bucket, "k"))[0] == "NoSuchKey"


def test_listings_page_and_group_as_s3_does(bucket: Any) -> None:
    names = [f"runs/r{n}/nodes/i-{m}" for n in range(3) for m in range(4)] + ["runs/r1/a b+c&d.json", "top"]
    for name in names:
        bucket.put_object(Bucket=BUCKET, Key=name, Body=b"x")
    pages = bucket.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 5})
    assert [item["Key"] for page in pages for item in page["Contents"]] == sorted(names)
    listed = bucket.list_objects_v2(Bucket=BUCKET, Prefix="runs/r1/")
    assert (listed["KeyCount"], listed["IsTruncated"]) == (5, False)
    assert all(item["ETag"] and item["Size"] == 1 and item["LastModified"].tzinfo for item in listed["Contents"])
    grouped = bucket.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="runs/", Delimiter="/", PaginationConfig={"PageSize": 2}
    )
    assert [p["Prefix"] for page in grouped for p in page.get("CommonPrefixes", [])] == [
        "runs/r0/",
        "runs/r1/",
        "runs/r2/",
    ]
    assert bucket.list_objects_v2(Bucket=BUCKET, Prefix="none/")["KeyCount"] == 0
    after = bucket.list_objects_v2(Bucket=BUCKET, StartAfter="runs/r2/nodes/i-2")
    assert [item["Key"] for item in after["Contents"]] == ["runs/r2/nodes/i-3", "top"]
    deleted = bucket.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": name} for name in names]})
    assert len(deleted["Deleted"]) == len(names)


def test_the_bucket_of_an_account_can_be_set_up_as_on_aws(world: World) -> None:
    client, name = world.s3, "orch-123456789012-us-east-1"
    assert refusal(lambda: client.head_bucket(Bucket=name))[1] == 404
    client.create_bucket(Bucket=name)
    client.head_bucket(Bucket=name, ExpectedBucketOwner="123456789012")
    assert refusal(lambda: client.head_bucket(Bucket=name, ExpectedBucketOwner="999999999999"))[1] == 403
    blocked = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": True,
    }
    client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=blocked)
    assert client.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"] == blocked
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    client.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
    abort: dict[str, Any] = {"ID": "abort", "Status": "Enabled", "Filter": {"Prefix": ""}}
    abort["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": 2}
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [abort]})
    assert client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"][0]["AbortIncompleteMultipartUpload"]
    arns = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    deny: dict[str, Any] = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": arns}
    insecure = deny | {"Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [insecure]}))
    # Loopback counts as secure: the policy that demands TLS denies nothing here.
    client.put_object(Bucket=name, Key="k", Body=b"x")
    assert client.get_object(Bucket=name, Key="k")["Body"].read() == b"x"
    client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    assert refusal(lambda: client.put_object(Bucket=name, Key="k", Body=b"y"))[:2] == ("AccessDenied", 403)


def test_a_presigned_link_needs_no_credentials(world: World, bucket: Any) -> None:
    bucket.put_object(Bucket=BUCKET, Key="k with space", Body=b"shared")
    signer = world.client("s3", config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))
    what = {"Bucket": BUCKET, "Key": "k with space"}
    parts = urlsplit(signer.generate_presigned_url("get_object", Params=what, ExpiresIn=60))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    late = urlsplit(signer.generate_presigned_url("get_object", Params=what, ExpiresIn=1))
    targets = [(f"{parts.path}?{parts.query}", 200), (f"{parts.path}x?{parts.query}", 403)]
    time.sleep(2.1)
    for target, status in (*targets, (f"{late.path}?{late.query}", 403)):
        connection.request("GET", target)
        reply = connection.getresponse()
        assert (reply.status, b"shared" in reply.read()) == (status, status == 200)
    connection.close()


def test_keys_with_odd_characters_come_back_as_they_went(bucket: Any) -> None:
    for key in ("a b", "a+b", "ä/ö", "x%2Fy", "q?r=1&s", "tilde~'()!*"):
        bucket.put_object(Bucket=BUCKET, Key=key, Body=key.encode(), Metadata={"rank": "3"})
        reply = bucket.get_object(Bucket=BUCKET, Key=key)
        assert (reply["Body"].read().decode(), reply["Metadata"]) == (key, {"rank": "3"})
    assert len(bucket.list_objects_v2(Bucket=BUCKET)["Contents"]) == 6
