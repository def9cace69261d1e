"""Earlier runs are found where their reports are: on this machine, or in the bucket."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.ids import Keys
from orchestrator.core.ledger import Verdict
from orchestrator.run.earlier import find_earlier
from orchestrator.run.home import CachedRun, Home
from tests.report.views import ended

REPORT = ended(Verdict("finished", "all 2 nodes finished")).report()


def run_id(number: int) -> str:
    return f"tiny-20261120-12{number:02d}00-abcd"


def test_reports_are_read_from_here_and_from_the_bucket_and_what_cannot_be_read_is_passed_over(
    session: Session, bucket: Bucket, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    home.remember(CachedRun(run_id(1), "sandbox", "tiny", "2026-11-20T12:01:00Z"))
    home.save_report(REPORT | {"run_id": run_id(1)})
    # A run has its folder in the bucket before it has its report; what is here is not fetched again.
    bucket.put(Keys(run_id(1)).report, b"of another")
    bucket.put(Keys(run_id(2)).report, json.dumps(REPORT | {"run_id": run_id(2)}).encode())
    bucket.put(Keys(run_id(3)).report, b"{")
    bucket.put(Keys(run_id(4)).spec, b"{}")
    bucket.put(Keys(run_id(5)).report, json.dumps(REPORT | {"phase": "stopped", "run_id": run_id(5)}).encode())
    assert [item.run_id for item in find_earlier(home, bucket)] == [run_id(2), run_id(1)]
    nowhere = Bucket(session, "orch-no-such-bucket")
    assert [item.run_id for item in find_earlier(home, nowhere)] == [run_id(1)]
    assert find_earlier(Home(tmp_path / "new"), nowhere) == ()
