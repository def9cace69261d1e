"""Large files into a bucket in parts that outlive the process that sends them: S3 keeps them until they are aborted.

s3transfer sends parts too, but throws them away when it is ended; this is for files of which half is worth keeping.
Never decides what is to be uploaded. The bucket's own rule aborts what was left for a day (`account.ensure_bucket`).
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.aws.errors import call, call_pages, error_code
from orchestrator.aws.s3 import MIB, MULTIPART_FROM, PART_BYTES, SHA256
from orchestrator.aws.session import Session
from orchestrator.core.parts import LEAST, Span
from orchestrator.errors import NotFound, OrchError

MOST_PARTS = 10_000  # of one object (S3 user guide, multipart upload limits)
THREADS = 8


@dataclass(frozen=True, slots=True)
class Pending:
    """An upload that was begun and neither completed nor aborted."""

    key: str
    upload_id: str
    begun: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """A part that S3 has: its size in bytes, its entity tag, when it came."""

    size: int
    etag: str
    at: datetime


class UploadEnded(OrchError):
    """Somebody else completed or aborted an upload meanwhile."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the upload of {key} was ended by somebody else", "start the same command again")


class Uploads:
    """The uploads in parts to one bucket. Every method raises NoPermission or Unreachable besides what it names."""

    def __init__(self, session: Session, bucket: str) -> None:
        self._session = session
        self._bucket = bucket

    @property
    def _client(self) -> Any:
        return self._session.client("s3")

    def pending(self, prefix: str) -> tuple[Pending, ...]:
        """Return what was begun under `prefix`, oldest first; nothing where there is no bucket."""
        request = {"Bucket": self._bucket, "Prefix": prefix}
        try:
            pages = call_pages("s3:ListBucketMultipartUploads", self._client, "list_multipart_uploads", **request)
        except NotFound:
            return ()
        found = [item for page in pages for item in page.get("Uploads", ()) if item["Key"].startswith(prefix)]
        made = (Pending(item["Key"], item["UploadId"], item["Initiated"].astimezone(UTC)) for item in found)
        return tuple(sorted(made, key=lambda item: item.begun))

    def parts(self, upload: Pending) -> dict[int, Part]:
        """Return the parts that S3 has of an upload, by number; none when it is gone."""
        request = {"Bucket": self._bucket, "Key": upload.key, "UploadId": upload.upload_id}
        try:
            pages = call_pages("s3:ListMultipartUploadParts", self._client, "list_parts", **request)
        except NotFound:
            return {}
        return {
            int(item["PartNumber"]): Part(int(item["Size"]), str(item["ETag"]), item["LastModified"].astimezone(UTC))
            for page in pages
            for item in page.get("Parts", ())
        }

    def abort(self, upload: Pending) -> None:
        """Give an upload up, with its parts; one that is gone is done."""
        request = {"Bucket": self._bucket, "Key": upload.key, "UploadId": upload.upload_id}
        try:
            call("s3:AbortMultipartUpload", lambda: self._client.abort_multipart_upload(**request))
        except NotFound:
            return

    def send(
        self, path: Path, key: str, sha256: str, *, sent: Callable[[int], None], kept: Callable[[int], None]
    ) -> None:
        """Upload the file `path`, going on with the newest upload to `key` that is pending, if there is one.

        `sha256` (hex) is noted with the object, for `Bucket.noted_digest`.
        `sent` is told of bytes as they have arrived, `kept` of bytes that had arrived before; both from other threads.
        A part is kept when its tag is the md5 of what it should hold. Raises OSError when the file cannot be read, and
        UploadEnded.
        """
        size = path.stat().st_size
        step = part_bytes(size)
        begun = [upload for upload in self.pending(key) if upload.key == key]
        upload = begun[-1] if begun else self._begin(key, sha256)
        there = self.parts(upload)

        def send_part(number: int) -> dict[str, Any]:
            with path.open("rb") as file:
                file.seek((number - 1) * step)
                body = file.read(step)
            known = there.get(number)
            is_there = known is not None and _holds(known, body)
            crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
            tag = known.etag if known is not None and is_there else self._send_part(upload, number, body, crc)
            (kept if is_there else sent)(len(body))
            # S3 wants to be told the checksums again: an upload that was begun with them is refused without.
            return {"PartNumber": number, "ETag": tag, "ChecksumCRC32": crc}

        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="upload")
        try:
            parts = list(pool.map(send_part, range(1, max(1, -(-size // step)) + 1)))
        finally:
            pool.shutdown(cancel_futures=True)
        self._complete(upload, parts)

    def join(
        self,
        key: str,
        sha256: str,
        pieces: Sequence[str],
        parts: Sequence[Sequence[Span]],
        joined: Callable[[int], None],
    ) -> None:
        """Make the object `key` of spans of the objects `pieces` of the same bucket, each of `parts` an upload's part.

        What is one span is copied within S3, the rest passes through here, as does one of 5 MiB or less: of an object
        no larger S3 copies no range. `joined` is told of bytes, from other threads; the whole one's `sha256` (hex) is
        noted with it, for `Bucket.noted_digest`. It is there whole or not at all. Raises NotFound for a piece that is
        gone, and UploadEnded.
        """
        upload = self._begin(key, sha256)

        def make(item: tuple[int, Sequence[Span]]) -> dict[str, Any]:
            number, spans = item
            if len(spans) == 1 and spans[0].stop - spans[0].start > LEAST:
                part = self._copy_part(upload, number, pieces[spans[0].piece], spans[0])
            else:
                body = b"".join(self._read(pieces[span.piece], span) for span in spans)
                crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
                part = {"ETag": self._send_part(upload, number, body, crc), "ChecksumCRC32": crc}
            joined(sum(span.stop - span.start for span in spans))
            return {"PartNumber": number, **part}

        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="join")
        try:
            made = list(pool.map(make, enumerate(parts, 1)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            self.abort(upload)
            raise
        pool.shutdown()
        self._complete(upload, made)

    def _complete(self, upload: Pending, parts: list[dict[str, Any]]) -> None:
        request = {
            "Bucket": self._bucket,
            "Key": upload.key,
            "UploadId": upload.upload_id,
            "MultipartUpload": {"Parts": parts},
        }
        _into(upload, lambda: self._client.complete_multipart_upload(**request))

    def _begin(self, key: str, sha256: str) -> Pending:
        request: dict[str, Any] = {"Bucket": self._bucket, "Key": key, "ContentType": "application/octet-stream"}
        request["Metadata"] = {SHA256: sha256}
        reply = call("s3:PutObject", lambda: self._client.create_multipart_upload(**request, ChecksumAlgorithm="CRC32"))
        return Pending(key, str(reply["UploadId"]), datetime.now(UTC))

    def _send_part(self, upload: Pending, number: int, body: bytes, crc: str) -> str:
        request = {"Bucket": self._bucket, "Key": upload.key, "UploadId": upload.upload_id, "PartNumber": number}
        reply = _into(upload, lambda: self._client.upload_part(Body=body, ChecksumCRC32=crc, **request))
        return str(reply["ETag"])

    def _copy_part(self, upload: Pending, number: int, source: str, span: Span) -> dict[str, str]:
        request = {
            "Bucket": self._bucket,
            "Key": upload.key,
            "UploadId": upload.upload_id,
            "PartNumber": number,
            "CopySource": {"Bucket": self._bucket, "Key": source},
            "CopySourceRange": f"bytes={span.start}-{span.stop - 1}",
        }
        reply = _into(upload, lambda: self._client.upload_part_copy(**request))["CopyPartResult"]
        # S3 makes the checksum itself where the upload was begun with one.
        return {name: str(reply[name]) for name in ("ETag", "ChecksumCRC32") if name in reply}

    def _read(self, key: str, span: Span) -> bytes:
        request = {"Bucket": self._bucket, "Key": key, "Range": f"bytes={span.start}-{span.stop - 1}"}

        def get() -> bytes:
            body: bytes = self._client.get_object(**request)["Body"].read()
            return body

        return call("s3:GetObject", get)


def _into(upload: Pending, send: Callable[[], Any]) -> Any:
    """Return the reply to what is sent into an upload. Raises UploadEnded."""
    try:
        return call("s3:PutObject", send)
    except NotFound as error:
        if error_code(error.__cause__ or error) != "NoSuchUpload":
            raise
        raise UploadEnded(upload.key) from error


def _holds(part: Part, body: bytes) -> bool:
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return part.size == len(body) and part.etag.strip('"') == digest


def part_bytes(size: int) -> int:
    """Return how many bytes a part of a file of `size` bytes has: always the same, so that parts are found again."""
    return max(PART_BYTES, -(-size // MOST_PARTS // MIB) * MIB)


def etag_of(path: Path) -> str:
    """Return the entity tag that S3 gives a file sent by `Uploads` (a large one) or in one piece. Raises OSError."""
    size = path.stat().st_size
    large = size >= MULTIPART_FROM
    step = part_bytes(size) if large else max(size, 1)
    digests = []
    with path.open("rb") as file:
        while body := file.read(step):
            digests.append(hashlib.md5(body, usedforsecurity=False))
    if not large:
        return f'"{(digests or [hashlib.md5(usedforsecurity=False)])[0].hexdigest()}"'
    whole = hashlib.md5(b"".join(each.digest() for each in digests), usedforsecurity=False)
    return f'"{whole.hexdigest()}-{len(digests)}"'
