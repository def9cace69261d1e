"""The table of runs says the same as the rows of `orch status --json`."""

from __future__ import annotations

import re
from dataclasses import replace

from orchestrator.core.caps import in_force
from orchestrator.core.ledger import Verdict
from orchestrator.report.html import render_page
from orchestrator.report.lines import summary
from orchestrator.report.live import screen
from orchestrator.report.status import status_table
from orchestrator.run.news import news_of
from orchestrator.run.view import RunView
from tests.core.worlds import at, facts, spec
from tests.report.views import drawn, ended, gone_instance, launched, running, view


def resumed() -> RunView:
    """Return a run that was stopped after 200 s, resumed at 1000 s, and whose machines were gone at 1790 s.

    Somebody looked at 9000 s, so it was closed then: its nodes had ended by themselves.
    """
    book = launched(1).add("wish", "extend", 100, max_cost=5_000_000)
    book.add("intent", "end", 180, verdict=Verdict("stopped", "as asked").to_json())
    book.add("outcome", "close", 200, generation=1)
    book.add("wish", "resume", 1000, max_duration=7200)
    book.tried(1, 0, "launched", ids=["i-1"], generation=2, seconds=1010)
    book.add("intent", "end", 9000, verdict=Verdict("finished", "done").to_json())
    book.add("outcome", "close", 9001, generation=2)
    gone = [gone_instance(0, 190), replace(gone_instance(1, 1790), launch_time=at(1010), generation=2)]
    seen = view(book, facts(9100, gone, resources=()), num_nodes=1)
    asked = spec(1, max_cost="3")
    return replace(seen, spec=in_force(asked, book.state), launched=asked.experiment)


def test_how_long_a_run_lasted_is_told_alike_everywhere() -> None:
    seen = resumed()
    page = render_page(seen, ())
    assert " finished after 29m50s: $" in summary(seen)
    assert "29m50s" in drawn(status_table([seen.summary()], at(9200), 80), 80).splitlines()[1].split()
    assert " finished after 29m50s; " in news_of(seen, [])[-1].text
    assert "finished  29m50s" in drawn(screen(seen, [], width=120, height=40))
    assert re.findall(r"<dt>time</dt><dd>(.*?)</dd>", page) == ["29m50s"]
    assert seen.report()["ended"] == "2026-11-20T12:29:50Z"


def test_a_page_tells_both_the_caps_of_the_launch_and_those_that_came_later() -> None:
    page, report = render_page(resumed(), ()), resumed().report()
    rows = re.findall(r">(cap|time limit.*?)</th><td>(.*?)</td><td>(.*?)</td>", page)
    # The time limit counts anew from a resume.
    assert rows == [
        ("cap", "$3.00, extended to $5.00 (2026-11-20 12:01 UTC, test)", "40% used"),
        ("time limit, since it was resumed", "1h00m, extended to 2h00m (2026-11-20 12:16 UTC, test)", "11% used"),
    ]
    assert "max_cost: &#39;3&#39;" in page or "max_cost: 3" in page, "the experiment as it was launched"
    assert [(item["max_cost_usd"], item["max_duration"]) for item in report["cap_changes"]] == [
        ("5.000000", None),
        (None, "2h00m"),
    ]


def test_a_finished_run_shows_dollars_saving_and_accuracy() -> None:
    row = ended(Verdict("finished", "all 2 nodes finished"), top1=76.1, top5=93.02).summary()
    text = drawn(status_table([row], at(400), 200), 200)
    line = text.splitlines()[1]
    assert "finished" in line
    assert "6m40s ago" in line
    assert "3m10s" in line
    assert "top-1 76.10% · top-5 93.02%" in line
    assert "sandbox" in line


def test_a_failed_run_says_why_and_a_running_one_ages() -> None:
    failed = ended(Verdict("failed", "node 1 (i-1): `run` exited with code 3")).summary()
    text = drawn(status_table([failed, running().summary()], at(400), 200), 200)
    assert "node 1 (i-1): `run` exited with code 3" in text
    assert "6m40s" in text.splitlines()[2]


def test_what_is_not_known_is_a_dash_and_never_zero() -> None:
    row = running().summary() | {"phase": "unknown", "num_nodes": None, "spot_usd": None, "on_demand_usd": None}
    line = drawn(status_table([row], at(400), 200), 200).splitlines()[1]
    assert line.split()[2] == "-"
    assert "$" not in line


def test_a_narrow_terminal_cuts_no_id_and_no_dollars() -> None:
    row = ended(Verdict("no-capacity", "no room")).summary() | {"run_id": "imagenet18-20261120-120000-abcd"}
    line = drawn(status_table([row], at(400), 80), 80).splitlines()[1]
    assert line.split() == ["imagenet18-20261120-120000-abcd", "no-capacity", "2", "3m10s", "$0.78", "70%"]
