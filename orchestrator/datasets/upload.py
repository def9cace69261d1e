"""The files of a data set into the bucket: only those that are not there, and of large ones only the missing parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.aws.s3 import MULTIPART_FROM, Bucket, ObjectInfo
from orchestrator.aws.session import Session
from orchestrator.aws.uploads import UploadEnded, Uploads, etag_of
from orchestrator.core.manifest import File
from orchestrator.datasets.progress import Progress, Tally


def upload(
    session: Session,
    bucket: Bucket,
    prefix: str,
    wanted: Sequence[tuple[File, Path]],
    progress: Progress,
    *,
    believe: bool,
) -> Tally:
    """Make the files `wanted` objects under `prefix`, and tell how many bytes that moved. Raises OrchError, OSError.

    An object is there when it has the size of its file and either the tag that S3 gives such a file or, put together of
    parts that nodes packed, its digest noted with it: one that was damaged, or put there by other hands, is replaced.
    `believe` False: so is one of which only the note says that it is right.
    """
    tally = Tally(progress, "uploading", sum(file.size for file, _ in wanted))
    there = {item.key: item for item in bucket.list(prefix)}
    missing: list[tuple[Path, str, str]] = []
    for file, path in wanted:
        found = there.get(prefix + file.path)
        # The tag costs reading the file, the note a request: of many small files the first is quicker.
        if _has_tag_of(found, path) or (believe and is_noted(bucket, found, file)):
            tally.keep(file.size)
        else:
            missing.append((path, prefix + file.path, file.sha256))
    large = {key for path, key, _ in missing if path.stat().st_size >= MULTIPART_FROM}
    bucket.upload_files((item for item in missing if item[1] not in large), tally.move)
    uploads = Uploads(session, bucket.name)
    for path, key, sha256 in missing:
        if key in large:
            try:
                uploads.send(path, key, sha256, sent=tally.move, kept=tally.keep)
            except UploadEnded:  # by somebody who uploads the same, and was quicker
                if bucket.noted_digest(key) != sha256:
                    raise
    for left in uploads.pending(prefix):  # of somebody who uploaded the same at the same time, or a whole day ago
        uploads.abort(left)
    return tally


def is_noted(bucket: Bucket, found: ObjectInfo | None, file: File) -> bool:
    """Tell whether an object has the size of `file`, and was noted to have its digest by whoever wrote it."""
    return found is not None and found.size == file.size and bucket.noted_digest(found.key) == file.sha256


def _has_tag_of(found: ObjectInfo | None, path: Path) -> bool:
    return found is not None and found.size == path.stat().st_size and found.etag == etag_of(path)
