"""A scheduler killed before and after each of its effects on the real sandbox, and what sees how the runs end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.crash_hook.sitecustomize import name_of
from scripts.crashes import faults_of_bill

ROOT = Path(__file__).parents[2]
S3 = "AWS4-HMAC-SHA256 Credential=AKIA1/20261127/us-east-1/s3/aws4_request, SignedHeaders=host"
EC2 = S3.replace("/s3/", "/ec2/")
RUN = "http://127.0.0.1:1/orch-1-us-east-1/runs/tiny-20261127-120000-abcd"


@pytest.mark.parametrize(
    ("method", "url", "signed", "body", "name"),
    [
        ("POST", "http://127.0.0.1:1/", EC2, b"Action=RunInstances&MinCount=4", "EC2 RunInstances"),
        ("POST", "http://127.0.0.1:1/", EC2, b"Action=DescribeInstances", None),
        ("POST", "http://127.0.0.1:1/", S3.replace("/s3/", "/pricing/"), b"{}", None),
        ("GET", f"{RUN}/lease.json", S3, b"", None),
        ("PUT", f"{RUN}/lease.json", S3, b"{}", "S3 lease.json"),
        ("PUT", f"{RUN}/nodes/i-0123456789abcdef0/instance.json", S3, b"{}", "S3 nodes/*/instance.json"),
        ("PUT", f"{RUN}/ledger/1.json", S3, b'{"kind": "intent", "action": "end"}', "ledger: intent end"),
    ],
)
def test_what_changes_something_is_an_effect_and_has_the_same_name_in_every_run(
    method: str, url: str, signed: str, body: bytes, name: str | None
) -> None:
    assert name_of(method, url, signed, body) == name


def metered(number: int, usd: str = "0.010000", ended: str | None = "2026-11-27T12:01:00Z") -> Mapping[str, Any]:
    times = {"launched": "2026-11-27T12:00:00Z", "ran": "2026-11-27T12:00:02Z", "ended": ended}
    return times | {"instance_id": f"i-{number}", "usd": usd}


def billed(number: int, usd: str = "0.010000") -> Mapping[str, Any]:
    return {"instance_id": f"i-{number}", "usd": usd, "hours": [{"price_usd": "3.600000"}]}


def test_a_bill_may_be_above_the_meter_by_the_time_a_machine_was_pending_and_by_nothing_else() -> None:
    assert faults_of_bill([billed(1), billed(2, "0.013000")], [metered(1), metered(2)], 2) == []
    assert "is billed $0.013100" in faults_of_bill([billed(1, "0.013100")], [metered(1)], 1)[0]
    assert "is billed $0.009999" in faults_of_bill([billed(1, "0.009999")], [metered(1)], 1)[0]


def test_a_machine_too_many_one_that_lives_and_one_without_a_line_are_seen() -> None:
    assert faults_of_bill([billed(1)], [metered(1), metered(2, ended=None)], 1) == [
        "2 instances for 1 node",
        "i-2 has not ended",
        "i-2 is not in the bill",
    ]


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(3600)
def test_a_launch_whose_scheduler_is_killed_at_any_effect_and_resumed_ends_as_if_it_had_not_been() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/crashes.py", "--json"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    golden, *others = found["runs"]
    kinds = {effect.rpartition(" ")[0] for effect in golden["effects"]}
    assert {"EC2 RunInstances", "EC2 TerminateInstances", "SSH command", "ledger: intent launch"} <= kinds
    assert len(others) == 2 * len(golden["effects"])
    assert all(run["instances"] == 4 and run["phase"] == "finished" for run in others)
