"""Reading what nodes printed, from S3: whole, or followed as it grows. Log files lie there in segments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from orchestrator.aws.s3 import Bucket
from orchestrator.core.ids import Keys
from orchestrator.errors import NotFound
from orchestrator.run.spec import load_spec

POLL_SECONDS = 2.0


def ranks_with_logs(bucket: Bucket, run_id: str) -> list[int]:
    """Return the ranks that have logs in S3."""
    prefix = Keys(run_id).logs
    found = {item.key.removeprefix(prefix).partition("/")[0] for item in bucket.list(prefix)}
    return sorted(int(rank) for rank in found if rank.isdigit())


def refuse_another_node(bucket: Bucket, run_id: str, rank: int) -> None:
    """Raise NotFound when the run has no node of this rank."""
    nodes = load_spec(bucket, run_id).num_nodes
    if rank >= nodes:
        raise NotFound(f"{run_id} has no node {rank}", f"it has ranks 0 to {nodes - 1}")


def read_logs(bucket: Bucket, run_id: str, rank: int | None = None) -> Iterator[tuple[int, str]]:
    """Yield (rank, line) of every node's `run.log`, or of one node's."""
    for each in ranks_with_logs(bucket, run_id) if rank is None else [rank]:
        for line in _Tail(bucket, run_id, each).more(end=True):
            yield each, line


def follow_logs(
    bucket: Bucket,
    run_id: str,
    rank: int | None,
    ended: Callable[[], bool],
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[int, str]]:
    """Yield (rank, line) as they come until `ended()`, then the rest."""
    tails: dict[int, _Tail] = {}
    while True:
        last = ended()
        for each in ranks_with_logs(bucket, run_id) if rank is None else [rank]:
            tail = tails.setdefault(each, _Tail(bucket, run_id, each))
            for line in tail.more(end=last):
                yield each, line
        if last:
            return
        pause(POLL_SECONDS)


class _Tail:
    """How far one node's log was read: `run.<generation>.<segment>.log`, segments in order of their names."""

    def __init__(self, bucket: Bucket, run_id: str, rank: int) -> None:
        self._bucket = bucket
        self._prefix = Keys(run_id).log(rank, "run.")
        self._seen: dict[str, tuple[str, int]] = {}
        self._rest = b""

    def more(self, *, end: bool) -> Iterator[str]:
        for item in sorted(self._bucket.list(self._prefix), key=lambda i: i.key):
            etag, offset = self._seen.get(item.key, ("", 0))
            if item.etag == etag:
                continue
            body = self._bucket.get(item.key)
            self._seen[item.key] = (item.etag, len(body))
            *lines, self._rest = (self._rest + body[offset:]).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
        if end and self._rest:
            yield self._rest.decode(errors="replace")
            self._rest = b""
