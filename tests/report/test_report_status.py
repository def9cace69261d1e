"""The table of runs says the same as the rows of `orch status --json`."""

from __future__ import annotations

from orchestrator.core.ledger import Verdict
from orchestrator.report.status import status_table
from tests.core.worlds import at
from tests.report.views import drawn, ended, running


def test_a_finished_run_shows_dollars_saving_and_accuracy() -> None:
    row = ended(Verdict("finished", "all 2 nodes finished"), top1=76.1, top5=93.02).summary()
    text = drawn(status_table([row], at(400), 200), 200)
    line = text.splitlines()[1]
    assert "finished" in line
    assert "6m40s ago" in line
    assert "3m20s" in line
    assert "top-1 76.10% · top-5 93.02%" in line
    assert "sandbox" in line


def test_a_failed_run_says_why_and_a_running_one_ages() -> None:
    failed = ended(Verdict("failed", "node 1 (i-1): run exited with code 3")).summary()
    text = drawn(status_table([failed, running().summary()], at(400), 200), 200)
    assert "node 1 (i-1): run exited with code 3" in text
    assert "6m40s" in text.splitlines()[2]


def test_what_is_not_known_is_a_dash_and_never_zero() -> None:
    row = running().summary() | {"phase": "unknown", "num_nodes": None, "spot_usd": None, "on_demand_usd": None}
    line = drawn(status_table([row], at(400), 200), 200).splitlines()[1]
    assert line.split()[2] == "-"
    assert "$" not in line


def test_a_narrow_terminal_cuts_no_id_and_no_dollars() -> None:
    row = ended(Verdict("no-capacity", "no room")).summary() | {"run_id": "imagenet18-20261120-120000-abcd"}
    line = drawn(status_table([row], at(400), 80), 80).splitlines()[1]
    assert line.split() == ["imagenet18-20261120-120000-abcd", "no-capacity", "2", "3m20s", "$0.78", "70%"]
