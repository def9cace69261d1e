"""Logs read back from segments in S3."""

from __future__ import annotations

from itertools import count

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.core.ids import Keys
from orchestrator.errors import NotFound
from orchestrator.run.logs import follow_logs, read_logs, refuse_another_node
from tests.core import worlds


def put(bucket: Bucket, run: str, rank: int, segment: int, text: str) -> None:
    bucket.put(Keys(run).log(rank, f"run.001.{segment:04d}.log"), text.encode())


def test_lines_that_cross_segments_are_whole(bucket: Bucket) -> None:
    put(bucket, "logs-1", 0, 0, "one\ntw")
    put(bucket, "logs-1", 0, 1, "o\nthree")
    put(bucket, "logs-1", 3, 0, "other\n")
    assert list(read_logs(bucket, "logs-1")) == [(0, "one"), (0, "two"), (0, "three"), (3, "other")]
    assert list(read_logs(bucket, "logs-1", 3)) == [(3, "other")]


def test_following_gives_each_line_once_as_it_grows(bucket: Bucket) -> None:
    put(bucket, "logs-2", 0, 0, "a\nb")
    steps = count()

    def grow(_: float) -> None:
        step = next(steps)
        put(bucket, "logs-2", 0, 0, "a\nbb\n" if step == 0 else "a\nbb\nc\n")
        if step == 1:
            put(bucket, "logs-2", 1, 0, "late\n")

    ends = iter([False, False, True])
    seen = list(follow_logs(bucket, "logs-2", None, lambda: next(ends), grow))
    assert seen == [(0, "a"), (0, "bb"), (0, "c"), (1, "late")]


def test_a_rank_that_the_run_does_not_have_is_refused(bucket: Bucket) -> None:
    run = worlds.spec(num_nodes=2)
    bucket.put(Keys(run.run_id).spec, run.to_json())
    refuse_another_node(bucket, run.run_id, 1)
    with pytest.raises(NotFound, match="has no node 2") as refused:
        refuse_another_node(bucket, run.run_id, 2)
    assert refused.value.hint == "it has ranks 0 to 1"
