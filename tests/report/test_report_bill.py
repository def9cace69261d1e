"""The bill as text says what its JSON says, to the micro-dollar."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from orchestrator.core.bill import RULE, make_bill
from orchestrator.core.facts import Instance
from orchestrator.core.ledger import Verdict
from orchestrator.report.bill import show_bill
from orchestrator.report.html import render_page
from tests.core.worlds import at
from tests.report.views import LISTED, PRICES, ended, gone_instance, running


def printed(*instances: Instance, prices: bool = True, width: int = 160) -> str:
    stream = io.StringIO()
    bill = make_bill("tiny-20261120-120000-abcd", instances, PRICES if prices else (), LISTED, at(9000))
    show_bill(Console(file=stream, width=width, markup=False, highlight=False), bill.to_json())
    return stream.getvalue()


def test_each_instance_has_its_row_with_seconds_zone_price_and_dollars() -> None:
    text = printed(*(gone_instance(index, 100) for index in range(16)))
    rows = [line for line in text.splitlines() if line.startswith("i-")]
    assert len(rows) == 16
    assert all(
        part in rows[3] for part in ("us-east-1a", "spot", "100 at 7.344000", "0.204000", "0.680000", "terminated")
    )


def test_each_hour_has_its_own_line() -> None:
    text = printed(gone_instance(0, 3700))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert any("3600 at 7.344000 7.344000 7.548000" in line for line in lines)
    assert "100 at 7.344000 0.204000" in lines


def test_totals_saving_volumes_and_the_rule_are_there() -> None:
    text = " ".join(printed(gone_instance(0, 3600)).split())
    assert "total $7.355111" in text
    assert "on-demand $24.491111" in text
    assert "saving $17.136000 70%" in text
    assert "EBS volumes $0.011111 (estimate from the list price)" in text
    assert " ".join(RULE.split()) in text


def test_the_low_bound_is_told_only_where_it_differs() -> None:
    assert "at least" not in printed(gone_instance(0, 100)).replace("at least 60", "")
    taken = printed(gone_instance(0, 100, "Server.SpotInstanceTermination"))
    assert "at least" in taken.replace("at least 60", "")
    assert "taken by EC2" in taken


def test_an_unknown_price_is_marked() -> None:
    text = printed(gone_instance(0, 100), prices=False)
    assert "24.480000?" in text
    assert "no recorded price" in text


def test_a_bill_that_is_not_final_says_so() -> None:
    stream = io.StringIO()
    show_bill(Console(file=stream, width=160, markup=False), running().bill.to_json())
    assert "bill so far" in stream.getvalue()
    assert "still there" in stream.getvalue()


def test_a_run_that_launched_nothing_costs_nothing() -> None:
    assert "nothing was launched: $0.000000" in printed()


def test_the_page_holds_the_bill_and_nothing_that_could_run() -> None:
    run = ended(Verdict("failed", "<script>alert(1)</script>"), top1=50.0)
    page = render_page(run, ())
    assert "i-0" in page
    assert run.report()["bill"]["spot_usd_high"] in page
    assert "<script>" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/", "")


def test_a_narrow_terminal_cuts_no_figure() -> None:
    long = replace(gone_instance(0, 3700), instance_id="i-0123456789abcdef0")
    lines = [" ".join(line.split()) for line in printed(long, width=80).splitlines()]
    assert "i-0123456789abcdef0 us-east-1a 3600 at 7.344000 7.548000 25.160000" in lines
    assert not any("…" in line for line in lines)
