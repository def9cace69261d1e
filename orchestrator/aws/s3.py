"""One S3 bucket: conditional writes, reads, listings and large files. Knows nothing of what lies in it.

ETags are passed on exactly as S3 gives them. Every method raises NoPermission or Unreachable besides what it names, and
NotFound where the bucket itself does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.aws.errors import PATIENCE_SECONDS, call, call_pages, calling, error_code, kind_of, patiently
from orchestrator.aws.session import Session
from orchestrator.core.ids import is_account_bucket
from orchestrator.errors import NotFound, OrchError, PreconditionFailed, Unreachable

MIB = 2**20
PART_BYTES = 16 * MIB
MULTIPART_FROM = 32 * MIB
PIECE_BYTES = MIB // 4
TRANSFER_THREADS = 16
DELETE_BATCH = 1000
# What an object's metadata call the digest of its content: unlike S3's tag it is the same however it was uploaded.
SHA256 = "sha256"

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing shows it; `size` in bytes."""

    key: str
    size: int
    etag: str
    last_modified: datetime


class Bucket:
    """A bucket by name; that it exists is not checked here (`account.ensure_bucket`). Safe to use from any thread."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self.name = name

    @property
    def _client(self) -> Any:
        return self._session.client("s3")

    def server_time(self) -> datetime:
        """Return S3's own time (UTC, within a second), from the Date header of its last reply on."""
        now = self._session.s3_clock.now()
        if now is None:
            with suppress(NotFound):  # a refusal tells the time as well
                call("s3:ListBucket", lambda: self._client.head_bucket(Bucket=self.name))
            now = self._session.s3_clock.now()
        if now is None:
            raise Unreachable("S3 did not tell the time", "its replies have no Date header; is that really S3?")
        return now

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_none_match: bool = False,
        if_match: str | None = None,
        content_type: str = "application/octet-stream",
        sha256: str = "",
    ) -> str:
        """Write an object and return its ETag; `if_none_match`: only a new one, `if_match`: only over that ETag.

        `sha256` (hex) is noted with the object, for `noted_digest`.

        Raises PreconditionFailed when somebody else wrote first. A write whose reply was lost and which boto3 then
        repeated is recognised as our own by its content.
        """
        request: dict[str, Any] = {"Bucket": self.name, "Key": key, "Body": body, "ContentType": content_type}
        request |= {"Metadata": {SHA256: sha256}} if sha256 else {}
        if if_none_match:
            request["IfNoneMatch"] = "*"
        if if_match is not None:
            request["IfMatch"] = if_match
        with calling("s3:PutObject"):
            try:
                reply = patiently(lambda: self._client.put_object(**request), _not_looked_at, PATIENCE_SECONDS)
            except Exception as error:
                lost = error_code(error) in {"PreconditionFailed", "412"}
                lost = lost or (if_match is not None and error_code(error) == "NoSuchKey")
                if not lost:
                    raise
                return self._ours(key, body, error)
        return str(reply["ETag"])

    def get(self, key: str) -> bytes:
        """Return an object's content. Raises NotFound."""
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """Return an object's content and ETag. Raises NotFound."""
        return self._fetch(key, {})

    def get_if_changed(self, key: str, etag: str) -> tuple[bytes, str] | None:
        """Return content and ETag, or None while the object still has `etag` ("" fetches always). Raises NotFound."""
        try:
            return self._fetch(key, {"IfNoneMatch": etag} if etag else {})
        except OrchError as error:
            if error_code(error.__cause__ or error) in {"304", "NotModified"}:
                return None
            raise

    def read(self, key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        """Yield bytes [start, stop) of an object, in pieces of up to 256 KiB as they come.

        Raises NotFound, PreconditionFailed when the object is not the one of `etag` any more ("" for any), and, after
        any piece, Unreachable.
        """
        asked = {"Bucket": self.name, "Key": key, "Range": f"bytes={start}-{stop - 1}"}
        if etag:
            asked["IfMatch"] = etag
        try:
            reply = call("s3:GetObject", lambda: self._client.get_object(**asked))
        except NotFound as error:
            raise self._absent(key, error) from error
        except OrchError as error:
            if error_code(error.__cause__ or error) in {"PreconditionFailed", "412"}:
                raise PreconditionFailed(f"s3://{self.name}/{key} was changed meanwhile", "start again") from error
            raise
        with closing(reply["Body"]) as body, calling("s3:GetObject"):
            yield from body.iter_chunks(PIECE_BYTES)

    def head(self, key: str) -> ObjectInfo | None:
        """Return what a listing would show of `key`, None when there is no such object."""
        try:
            reply = call("s3:GetObject", lambda: self._client.head_object(Bucket=self.name, Key=key))
        except NotFound:
            return None
        return ObjectInfo(key, int(reply["ContentLength"]), reply["ETag"], reply["LastModified"].astimezone(UTC))

    def noted_digest(self, key: str) -> str:
        """Return the sha256 (hex) that was noted with an object as it was written, "" where none was."""
        try:
            reply = call("s3:GetObject", lambda: self._client.head_object(Bucket=self.name, Key=key))
        except NotFound:
            return ""
        return str(reply.get("Metadata", {}).get(SHA256, ""))

    def list(self, prefix: str = "") -> tuple[ObjectInfo, ...]:
        """Return every object under `prefix`, in order of keys."""
        return tuple(
            ObjectInfo(item["Key"], int(item["Size"]), item["ETag"], item["LastModified"].astimezone(UTC))
            for page in self._pages(Prefix=prefix)
            for item in page.get("Contents", [])
        )

    def list_folders(self, prefix: str = "") -> tuple[str, ...]:
        """Return the prefixes one `/` below `prefix`, each ending in `/`, in order."""
        pages = self._pages(Prefix=prefix, Delimiter="/")
        return tuple(item["Prefix"] for page in pages for item in page.get("CommonPrefixes", []))

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is done."""
        call("s3:DeleteObject", lambda: self._client.delete_object(Bucket=self.name, Key=key))

    def delete_prefix(self, prefix: str) -> int:
        """Delete everything under `prefix` (which may not be empty) and return the number of objects deleted."""
        if not prefix:
            raise ValueError("an empty prefix would delete the whole bucket")
        keys = [item.key for item in self.list(prefix)]
        for start in range(0, len(keys), DELETE_BATCH):
            batch = {"Objects": [{"Key": key} for key in keys[start : start + DELETE_BATCH]], "Quiet": True}
            reply = call("s3:DeleteObject", partial(self._client.delete_objects, Bucket=self.name, Delete=batch))
            if reply.get("Errors"):
                first = reply["Errors"][0]
                raise OrchError(f"s3://{self.name}/{first['Key']} was not deleted: {first['Code']}", "try again")
        return len(keys)

    def upload_file(self, path: Path, key: str, on_bytes: OnBytes | None = None) -> None:
        """Upload a file, a large one in parallel parts. Raises OSError when the file cannot be read."""
        self._transfer("s3:PutObject", "upload", [(str(path), key, {})], on_bytes)

    def upload_files(self, wanted: Iterable[tuple[Path, str, str]], on_bytes: OnBytes | None = None) -> None:
        """Upload many files at once, each to a key and with its sha256 (hex) noted, for `noted_digest`.

        `on_bytes` is called from other threads. Raises OSError when a file cannot be read.
        """
        files = [(str(path), key, {"Metadata": {SHA256: sha256}}) for path, key, sha256 in wanted]
        self._transfer("s3:PutObject", "upload", files, on_bytes)

    def download_file(self, key: str, path: Path, on_bytes: OnBytes | None = None) -> None:
        """Download an object, a large one by parallel ranged reads; `path` appears whole or not at all.

        Raises NotFound, or OSError when the file cannot be written.
        """
        self.download_files([(key, path)], on_bytes)

    def download_files(self, wanted: Iterable[tuple[str, Path]], on_bytes: OnBytes | None = None) -> None:
        """Download many objects at once, as `download_file` does; `on_bytes` is called from other threads."""
        self._transfer("s3:GetObject", "download", [(key, str(path), {}) for key, path in wanted], on_bytes)

    def _fetch(self, key: str, condition: dict[str, str]) -> tuple[bytes, str]:
        def send() -> tuple[bytes, str]:
            reply = self._client.get_object(Bucket=self.name, Key=key, **condition)
            return reply["Body"].read(), str(reply["ETag"])

        try:
            return call("s3:GetObject", send)
        except NotFound as error:
            raise self._absent(key, error) from error

    def _absent(self, key: str, error: NotFound) -> NotFound:
        if error_code(error.__cause__ or error) == "NoSuchBucket":
            hint = (
                "the first `orch launch` makes it"
                if is_account_bucket(self.name)
                else "check its name with `aws s3 ls`"
            )
            return NotFound(f"there is no bucket {self.name}", hint)
        return NotFound(f"s3://{self.name}/{key} does not exist", "check its name with `aws s3 ls`")

    def _ours(self, key: str, body: bytes, error: Exception) -> str:
        """Return the ETag of a conditional write that lost against itself. Raises PreconditionFailed for all others."""
        response: Any = getattr(error, "response", {})
        if response.get("ResponseMetadata", {}).get("RetryAttempts", 0):
            with suppress(NotFound):
                found, etag = self.get_with_etag(key)
                if found == body:
                    return etag
        raise PreconditionFailed(
            f"s3://{self.name}/{key} was written by somebody else first", "read it again, then decide"
        ) from error

    def _pages(self, **request: str) -> Iterable[dict[str, Any]]:
        try:
            return call_pages("s3:ListBucket", self._client, "list_objects_v2", Bucket=self.name, **request)
        except NotFound as error:
            raise self._absent("", error) from error

    def _transfer(
        self, action: str, direction: str, files: Iterable[tuple[str, str, Any]], on_bytes: OnBytes | None
    ) -> None:
        """Move files with one s3transfer manager: `upload` takes (path, key, more), `download` (key, path, more)."""
        from s3transfer.manager import TransferConfig, TransferManager
        from s3transfer.subscribers import BaseSubscriber

        class Progress(BaseSubscriber):  # type: ignore[misc]
            def on_progress(self, bytes_transferred: int, **_: Any) -> None:
                if on_bytes is not None:
                    on_bytes(bytes_transferred)

        config = TransferConfig(
            multipart_threshold=MULTIPART_FROM,
            multipart_chunksize=PART_BYTES,
            max_request_concurrency=TRANSFER_THREADS,
        )
        with calling(action), TransferManager(self._client, config) as manager:
            if direction == "upload":
                futures = [manager.upload(path, self.name, key, more, [Progress()]) for path, key, more in files]
            else:
                futures = [manager.download(self.name, key, path, more, [Progress()]) for key, path, more in files]
            for future in futures:
                future.result()


def _not_looked_at(error: Exception) -> bool:
    """Tell whether S3 asks for the same write again: throttled, or a race of conditional writes (409)."""
    return kind_of(error) in {"throttled", "conflict"}
