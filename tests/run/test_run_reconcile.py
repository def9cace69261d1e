"""AWS's files found on disk and in a bucket, and what came of them kept with the run."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.bill import Bill, make_bill
from orchestrator.core.ids import Keys
from orchestrator.errors import BadInput, NotFound
from orchestrator.run.charges import may_hold, read_charges
from orchestrator.run.reconcile import reconcile_run, with_reconciliation
from orchestrator.run.usage import LiveUse, measure_s3
from tests.core.three_hours import CUR, FEED, HEAD, LISTED, NODES, PRICES, RUN, three_hours
from tests.core.worlds import at, beacon, facts, instance

START, END = at(0), at(12_030)
FEEDS = "feeds/123456789012.2026-11-20-{hour}.001.aBcD1234.gz"
EXPORT = "cur/daily/data/BILLING_PERIOD=2026-11/daily-00001.csv.gz"


def hourly_feeds() -> dict[str, bytes]:
    """The feed of the run in a packed file for each hour, as EC2 leaves it."""
    lines = FEED.removeprefix(HEAD).splitlines(keepends=True)
    hours = {line[11:13] for line in lines}
    return {
        FEEDS.format(hour=hour): gzip.compress((HEAD + "".join(x for x in lines if x[11:13] == hour)).encode())
        for hour in hours
    }


def test_a_file_packed_or_not_and_a_folder_reconcile(session: Session, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "cur.csv").write_text(CUR)
    (tmp_path / "cur.csv.gz").write_bytes(gzip.compress(CUR.encode()))
    folder = tmp_path / "feeds"
    folder.mkdir()
    for key, body in hourly_feeds().items():
        (folder / key.rpartition("/")[2]).write_bytes(body)
    for where in (tmp_path / "cur.csv", tmp_path / "cur.csv.gz", folder):
        found = reconcile_run(session, bucket, three_hours(), str(where)).to_json()["reconciliation"]
        assert (found["reconciled"], found["differences"]) == (True, [])
    assert len(found["files"]) == 4


def test_from_a_bucket_only_what_can_hold_the_run_is_read(session: Session, bucket: Bucket) -> None:
    for key, body in hourly_feeds().items():
        bucket.put(key, body)
    bucket.put("feeds/123456789012.2026-10-01-12.001.aBcD1234.gz", b"not a feed")
    bucket.put("feeds/readme.txt", b"not a feed")
    bucket.put(EXPORT, gzip.compress(CUR.encode()))
    bucket.put(EXPORT.replace("2026-11", "2026-10"), b"not an export")
    for prefix, files in (("feeds/", 4), ("cur/daily", 1), ("", 5)):
        names, lines = read_charges(session, f"s3://{bucket.name}/{prefix}", START, END)
        assert len(names) == files
        assert {line.resource for line in lines} >= {"i-0", "i-2", "i-4"}


@pytest.mark.parametrize(
    ("key", "may"),
    [
        ("123456789012.2026-11-20-12.001.aBcD1234.gz", True),
        ("p/123456789012.2026-11-21-14.3.aBcD1234", True),  # written a day late
        ("123456789012.2026-11-20-10.001.aBcD1234.gz", False),
        ("123456789012.2026-11-22-12.001.aBcD1234.gz", False),
        ("e/data/BILLING_PERIOD=2026-11/e-00001.csv.gz", True),
        ("e/data/BILLING_PERIOD=2026-12/e-00001.csv.gz", False),
        ("e/metadata/BILLING_PERIOD=2026-11/e-Manifest.json", False),
    ],
)
def test_objects_are_chosen_by_name(key: str, may: bool) -> None:
    assert may_hold(key, START, END) is may


def test_what_is_not_there_or_not_readable_is_said(session: Session, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1....")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(CUR.encode())[:40])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    for name, kind, word in (
        ("missing", NotFound, "there is no file"),
        ("empty", NotFound, "holds no data feed file"),
        ("x.parquet", BadInput, "Parquet"),
        ("cut.gz", BadInput, "cannot be read"),
        ("binary", BadInput, "cannot be read"),
    ):
        with pytest.raises(kind, match=word):
            reconcile_run(session, bucket, three_hours(), str(tmp_path / name))
    with pytest.raises(NotFound, match="holds no data feed file"):
        read_charges(session, f"s3://{bucket.name}/nowhere/", START, END)


def test_a_run_that_goes_on_is_not_reconciled(session: Session, bucket: Bucket) -> None:
    alive = make_bill(RUN, [replace(NODES[0], state="running", end_time=None)], PRICES, LISTED, END)
    for bill in (alive, Bill(RUN, (), (), True)):
        with pytest.raises(BadInput, match="nothing to reconcile yet"):
            reconcile_run(session, bucket, bill, "feed")


def test_a_reconciliation_is_kept_until_the_bill_changes(session: Session, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "feed").write_text(FEED)
    bill = three_hours()
    done = reconcile_run(session, bucket, bill, str(tmp_path / "feed"))
    assert done.reconciliation is not None
    assert with_reconciliation(bucket, bill) == done
    resumed = make_bill(RUN, [*NODES, replace(NODES[0], instance_id="i-5", generation=3)], PRICES, LISTED, END)
    assert with_reconciliation(bucket, resumed) == resumed


def test_what_a_run_left_in_s3_is_measured(bucket: Bucket) -> None:
    keys = Keys("tiny-20261120-120000-s3s3")
    for key, size in ((keys.log(0, "out"), 10), (keys.checkpoint(5, "model"), 1000), (keys.metrics, 7)):
        bucket.put(key, b"x" * size)
    bucket.put(keys.report, b"written after the bill")
    own = {"step": 1, "s3_gets": 40, "s3_puts": 2, "s3_bytes": 100}
    beacons = [
        beacon(0, staged=3000, progress=own),
        beacon(1, staged=3000, progress=own | {"s3_gets": 2, "s3_puts": "x"}),
    ]
    use = measure_s3(bucket, keys.run, facts(beacons=beacons))
    assert (use.objects, use.stored_bytes, use.staged_bytes) == (3, 1017, 6000)
    assert (use.gets, use.puts, use.own_bytes) == (42, 2, 200)


def test_what_a_run_that_goes_on_uses_is_measured_once_a_minute_and_not_before_it_has_machines(bucket: Bucket) -> None:
    keys = Keys("tiny-20261120-120000-live")
    use = LiveUse(bucket, keys.run)
    bucket.put(keys.metrics, b"x" * 7)
    assert use.at(facts()).objects == 0
    assert use.at(facts(1, [instance(0)])).objects == 1
    bucket.put(keys.log(0, "out"), b"more")
    assert [use.at(facts(seconds, [instance(0)])).objects for seconds in (60, 62)] == [1, 2]
