"""The files of a data set into the bucket: only those that are not there, and of large ones only the missing parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.aws.s3 import MULTIPART_FROM, Bucket, ObjectInfo
from orchestrator.aws.session import Session
from orchestrator.aws.uploads import Uploads, etag_of
from orchestrator.core.manifest import File
from orchestrator.datasets.progress import Progress, Tally


def upload(
    session: Session, bucket: Bucket, prefix: str, wanted: Sequence[tuple[File, Path]], progress: Progress
) -> Tally:
    """Make the files `wanted` objects under `prefix`, and tell how many bytes that moved. Raises OrchError, OSError.

    An object is there when it has the size of its file and the tag that S3 gives such a file: one that was damaged, or
    put there by other hands, is replaced.
    """
    tally = Tally(progress, "uploading", sum(file.size for file, _ in wanted))
    there = {item.key: item for item in bucket.list(prefix)}
    missing: list[tuple[Path, str]] = []
    for file, path in wanted:
        key = prefix + file.path
        if _is_there(there.get(key), path):
            tally.keep(file.size)
        else:
            missing.append((path, key))
    large = [(path, key) for path, key in missing if path.stat().st_size >= MULTIPART_FROM]
    bucket.upload_files([pair for pair in missing if pair not in large], tally.move)
    uploads = Uploads(session, bucket.name)
    for path, key in large:
        uploads.send(path, key, sent=tally.move, kept=tally.keep)
    for left in uploads.pending(prefix):  # of somebody who uploaded the same at the same time, or a whole day ago
        uploads.abort(left)
    return tally


def _is_there(found: ObjectInfo | None, path: Path) -> bool:
    return found is not None and found.size == path.stat().st_size and found.etag == etag_of(path)
