"""Finding and reading the files of AWS: one, a folder, or a bucket where EC2 or Data Exports leaves them. Reads only.

From a bucket only what can hold a run's charges is fetched: data feed files by the hour in their name, CUR 2.0 exports
by their billing period.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.charged import Charged
from orchestrator.core.cur import parse_cur
from orchestrator.core.spot_feed import MARK, parse_feed
from orchestrator.errors import BadInput, NotFound

S3 = "s3://"
# `123456789012.2026-11-20-13.003.abcd1234.gz`: the hour is UTC, and EC2 may write it hours late.
FEED_NAME = re.compile(r"(?:^|/)\d{12}\.(\d{4}-\d\d-\d\d-\d\d)\.\d+\.[^./]+(?:\.gz)?$")
LATE = timedelta(hours=24)
PERIOD = re.compile(r"(?:^|/)BILLING_PERIOD=(\d{4}-\d\d)/[^/]+\.(?:csv|csv\.gz)$")
MAGIC_GZIP, MAGIC_PARQUET = b"\x1f\x8b", b"PAR1"


def read_charges(session: Session, where: str, start: datetime, end: datetime) -> tuple[list[str], list[Charged]]:
    """Return the files found at `where` and their lines, for a run that lasted from `start` to `end`.

    Raises BadInput for what is neither format, NotFound where nothing lies.
    """
    files: list[str] = []
    lines: list[Charged] = []
    found = _in_bucket(session, where, start, end) if where.startswith(S3) else _on_disk(Path(where))
    for name, body in found:
        files.append(name)
        text = decode(name, body)
        lines += parse_feed(name, text) if text.startswith(MARK[0]) else parse_cur(name, text)
    if not files:
        raise NotFound(f"{where} holds no data feed file or CUR 2.0 export of that time", "AWS may be a day late")
    return files, lines


def decode(name: str, body: bytes) -> str:
    """Return the text of a file, unpacked. Raises BadInput."""
    if body.startswith(MAGIC_PARQUET):
        raise BadInput(f"{name} is Parquet", "export CUR 2.0 as text/csv")
    try:
        return (gzip.decompress(body) if body.startswith(MAGIC_GZIP) else body).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{name} cannot be read: {error}", "fetch it again") from error


def may_hold(key: str, start: datetime, end: datetime) -> bool:
    """Whether an object can hold charges of [start, end], by its name."""
    feed = FEED_NAME.search(key)
    if feed is not None:
        hour = datetime.strptime(feed[1], "%Y-%m-%d-%H").replace(tzinfo=UTC)
        return start - timedelta(hours=1) <= hour <= end + LATE
    period = PERIOD.search(key)
    return period is not None and f"{start:%Y-%m}" <= period[1] <= f"{end:%Y-%m}"


def _on_disk(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.exists():
        raise NotFound(f"there is no file {path}", "give a data feed file, a CUR 2.0 export, or their folder")
    try:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        yield from ((file.name, file.read_bytes()) for file in files)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", "see who may read it") from error


def _in_bucket(session: Session, where: str, start: datetime, end: datetime) -> Iterator[tuple[str, bytes]]:
    name, _, prefix = where.removeprefix(S3).partition("/")
    bucket = Bucket(session, name)
    for item in bucket.list(prefix):
        if may_hold(item.key, start, end):
            yield f"{S3}{name}/{item.key}", bucket.get(item.key)
