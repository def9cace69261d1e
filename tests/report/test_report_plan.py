"""The plan shows what is chosen, what it costs, and what was left out."""

from __future__ import annotations

import io
from datetime import timedelta

from rich.console import Console

from orchestrator.core.plan import Plan, QuotaLine
from orchestrator.report.plan import PlanSheet, question, quota_lines, show_plan
from tests.core.worlds import offer

QUOTA = QuotaLine("L-7212CCBC", "spot", "p3.16xlarge", 1024, 1152)


def printed(plan: Plan, will_create: tuple[str, ...] = (), notes: tuple[str, ...] = (), width: int = 160) -> str:
    stream = io.StringIO()
    sheet = PlanSheet("imagenet18: 16 nodes", plan, timedelta(hours=1), will_create, notes)
    show_plan(Console(file=stream, width=width, markup=False, highlight=False), sheet)
    return stream.getvalue()


def plan(*offers: object, rejected: tuple[tuple[str, str], ...] = ()) -> Plan:
    chosen = offers or (offer(), offer("us-east-1b", 4_000_000))
    return Plan(16, chosen, rejected, (QUOTA,), timedelta(hours=1))  # type: ignore[arg-type]


def test_the_first_offer_is_the_chosen_one() -> None:
    rows = [line for line in printed(plan()).splitlines() if "p3.16xlarge" in line and "$" in line]
    assert [("✔" in row, "us-east-1a" in row) for row in rows] == [(True, True), (False, False)]


def test_a_row_has_prices_saving_time_and_cost() -> None:
    row = next(line for line in printed(plan()).splitlines() if "✔" in line)
    assert row.split() == [
        "✔", "p3.16xlarge", "us-east-1a", "spot", "3.0000", "24.4800", "88%", "30m00s", "$24.00", "$195.84",
    ]  # fmt: skip


def test_without_an_expected_time_costs_are_bounds() -> None:
    unknown = offer(hours=None)
    row = next(line for line in printed(plan(unknown)).splitlines() if "✔" in line)
    assert "≤ 1h00m" in row
    assert "≤ $24.00" in row
    assert question(unknown, "16") == "Launch 16 x p3.16xlarge for at most $24.00?"
    assert question(offer(), "8 to 16") == "Launch 8 to 16 x p3.16xlarge for about $24.00?"


def test_quotas_are_told_once_with_what_is_needed_and_held() -> None:
    smaller = QuotaLine("L-7212CCBC", "spot", "p3.8xlarge", 512, 1152)
    unknown = QuotaLine("L-417A185B", "on-demand", "p3.16xlarge", 1024, None)
    assert quota_lines([QUOTA, smaller, unknown]) == [
        "L-7212CCBC (spot): 1024 vCPU needed for p3.16xlarge, 1152 held",
        "L-417A185B (on-demand): 1024 vCPU needed for p3.16xlarge, how many are held AWS did not say",
    ]


def test_what_is_left_out_created_and_noted_is_told() -> None:
    text = printed(
        plan(rejected=(("p5.48xlarge", "EC2 does not offer it in this region"),)),
        will_create=("bucket orch-1-us-east-1",),
        notes=("without a scheduler the nodes end after 1h10m",),
    )
    assert "left out p5.48xlarge: EC2 does not offer it in this region" in text
    assert "creates  bucket orch-1-us-east-1" in text
    assert "note     without a scheduler the nodes end after 1h10m" in text


def test_many_offers_are_cut_and_counted() -> None:
    text = printed(plan(*(offer(f"us-east-1{letter}") for letter in "abcdefghijklmnop")))
    assert "and 4 more, tried in order of expected cost" in text


def test_a_narrow_terminal_cuts_no_figure() -> None:
    changes = {"instance_type": "p3dn.24xlarge", "lifecycle": "on-demand", "hours": None, "cost": 5 * 10**9}
    text = printed(plan(offer("us-east-1a", 24_480_000, **changes)), width=80)
    row = next(line for line in text.splitlines() if "✔" in line)
    expected = ["p3dn.24xlarge", "us-east-1a", "on-demand", "24.4800", "0%", "≤", "1h00m", "≤", "$5,000.00"]
    assert row.split() == ["✔", *expected]
