"""AWS's own files against the bill of the three-hour run: no difference, and each that is made is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.bill import make_bill
from orchestrator.core.cur import NEEDED, parse_cur
from orchestrator.core.reconcile import Reconciliation, reconcile
from orchestrator.core.spot_feed import parse_feed
from orchestrator.errors import BadInput
from tests.core import three_hours as run
from tests.core.three_hours import CUR, FEED, HEAD, cur_row
from tests.core.worlds import at


def held_against(feed: str = "", cur: str = "") -> Reconciliation:
    lines = (parse_feed("feed", feed) if feed else ()) + (parse_cur("cur.csv", cur) if cur else ())
    return reconcile(run.three_hours(), lines, ["feed"])


def named(result: Reconciliation) -> list[tuple[str, str, str]]:
    return [(item.where, item.resource, item.what) for item in result.differences]


def test_a_data_feed_of_the_run_reconciles_with_no_difference() -> None:
    result = held_against(feed=FEED)
    assert result.differences == ()
    assert (result.reconciled, result.matched) == (True, 7)
    assert result.ours == result.theirs == 25_552_500 + 13_072_500 + 90_000
    assert result.notes == (
        "i-1: EC2 took it within the first hour, and AWS did not charge it",
        "i-3: on-demand, of which a spot data feed says nothing",
    )


def test_a_cost_and_usage_export_of_the_run_reconciles_with_no_difference() -> None:
    result = held_against(cur=CUR)
    assert result.differences == ()
    assert (result.reconciled, result.matched) == (True, 11)
    assert result.ours == result.theirs == 25_552_500 + 13_072_500 + 26_724_000 + 90_000
    assert "ebs vol-0: estimate $0.037130, AWS $0.037130" in result.notes


@pytest.mark.parametrize(
    ("before", "after", "line", "node", "what"),
    [
        ("4.0725", "4.0750", 6, "i-2", "amount"),
        ("\t8.100 USD\t4.0725", "\t8.200 USD\t4.0725", 6, "i-2", "price 8.200000 an hour there, 8.100000 here"),
        ("6.300 USD\t2.1525", "6.300 USD\t2.1526", 9, "i-0", "amount"),
        ("15:00:04", "19:00:04", 9, "i-0", "an hour that is not in the bill"),
    ],
)
def test_one_changed_line_of_a_feed_is_named(before: str, after: str, line: int, node: str, what: str) -> None:
    assert FEED.count(before) == 1
    result = held_against(feed=FEED.replace(before, after))
    assert (f"feed line {line}", node, what) in named(result)
    assert len(result.differences) == (2 if "hour that" in what else 1)
    assert not result.reconciled


@pytest.mark.parametrize(
    ("before", "after", "where", "node", "what"),
    [
        ("18.3600000000", "18.3610000000", "line 10", "i-3", "amount"),
        ("0.2027777778", "0.2000000000", "line 9", "i-2", "720 s there, 730 s here"),
        ("0.3000000000,USD,2.4300000000", "0.3000000000,USD,2.4000000000", "lines 7, 8", "i-2", "amount"),
    ],
)
def test_one_changed_line_of_an_export_is_named(before: str, after: str, where: str, node: str, what: str) -> None:
    assert CUR.count(before) == 1
    result = held_against(cur=CUR.replace(before, after))
    assert named(result) == [(f"cur.csv {where}", node, what)]
    assert not result.reconciled


def test_a_line_that_is_not_there_is_named_with_its_seconds_and_dollars() -> None:
    lines = [line for line in FEED.splitlines(keepends=True) if "13:42:03" not in line]
    [missing] = held_against(feed="".join(lines)).differences
    assert (missing.where, missing.resource, missing.ours, missing.theirs) == ("not in the files", "i-2", 4_072_500, 0)
    rows = [line for line in CUR.splitlines(keepends=True) if "18.36" not in line]
    [missing] = held_against(cur="".join(rows)).differences
    assert missing.what == "2700 s of on-demand p3.16xlarge that AWS does not list"
    assert missing.ours == 18_360_000


def test_an_empty_file_reconciles_nothing() -> None:
    result = held_against(feed=HEAD)
    assert not result.reconciled
    assert [item.resource for item in result.differences] == ["i-0", "i-2", "i-4"]


def test_a_feed_that_can_say_nothing_of_the_run_does_not_reconcile_it() -> None:
    bill = make_bill(run.RUN, [run.NODES[3]], run.PRICES, run.LISTED, at(20_000))
    result = reconcile(bill, parse_feed("feed", FEED), ["feed"])
    assert (result.differences, result.matched, result.reconciled) == ((), 0, False)


def test_what_aws_waives_may_also_be_listed_at_nothing() -> None:
    waived = cur_row("i-1", "SpotUsage", 12, "0.6666666667", "0.0000000000")
    result = held_against(cur=CUR + waived)
    assert result.reconciled
    assert "i-1: EC2 took it within the first hour, and AWS charged $0" in result.notes


def test_what_aws_did_not_waive_must_be_our_high_bound() -> None:
    assert held_against(cur=CUR + cur_row("i-1", "SpotUsage", 12, "0.6666666667", "4.8000000000")).reconciled
    wrong = held_against(cur=CUR + cur_row("i-1", "SpotUsage", 12, "0.6666666667", "4.7000000000"))
    assert named(wrong) == [("cur.csv line 16", "i-1", "amount")]


def test_a_charge_for_our_instance_that_the_bill_does_not_have_is_a_difference() -> None:
    result = held_against(cur=CUR + cur_row("i-0", "DataTransfer-Regional-Bytes", 12, "12.5", "0.1250000000"))
    assert named(result) == [
        ("cur.csv line 16", "i-0", "DataTransfer-Regional-Bytes:p3.16xlarge, which is not in the bill")
    ]


def test_the_digits_of_a_file_bound_what_counts_as_a_difference() -> None:
    rounded = FEED.replace("4.0725", "4.07").replace("2.1525", "2.152")
    assert held_against(feed=rounded).reconciled
    assert not held_against(feed=FEED.replace("4.0725", "4.08")).reconciled


def test_a_resumed_run_is_told_apart_by_its_bill() -> None:
    value = held_against(feed=FEED).to_json()
    assert value["machines_usd"] == "70.239000"
    assert value["reconciled"] is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ("line 1: must be #Version: 1.0",)),
        (HEAD.replace("1.0", "2.0"), ("line 1: must be #Version: 1.0",)),
        (HEAD.replace("Charge ", ""), ("line 2: the fields must be Timestamp UsageType",)),
        (FEED.replace("13:42:03 UTC", "13:42:03"), ("line 6: Timestamp '2026-11-20 13:42:03' is not like",)),
        (
            FEED.replace("4.0725 USD", "4.07z USD").replace("0.0900 USD", "0.0900 EUR"),
            ("line 6: '4.07z' is not an amount of dollars", "line 7: '0.0900 EUR' is not an amount like"),
        ),
        (HEAD + "a\tb\n", ("line 3: 2 fields where there must be 9",)),
        (FEED.replace("SpotUsage:p3.16xlarge", "BoxUsage", 1), ("line 3: UsageType 'BoxUsage'",)),
        (FEED.replace("\ti-4\t", "\tx\t"), ("line 7: InstanceID 'x' is not one",)),
        (FEED.replace("0.0900", "nan"), ("line 7: 'nan' is not an amount of dollars",)),
    ],
)
def test_a_malformed_feed_is_refused_with_every_line(text: str, said: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as refused:
        parse_feed("feed", text)
    assert len(refused.value.details) == len(said)
    assert all(detail.startswith(start) for detail, start in zip(refused.value.details, said, strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", tuple(f"line 1: no column {name}" for name in NEEDED)),
        (CUR.replace("line_item_usage_amount", "usage"), ("line 1: no column line_item_usage_amount",)),
        (CUR.replace("2026-11-20T15:00:00.000Z,2026", "yesterday,2026", 1), ("line 5: line_item_usage_start_date",)),
        (CUR.replace("0.2027777778", "much"), ("line 9: line_item_usage_amount 'much' is not a number",)),
        (CUR.replace("18.3600000000", ""), ("line 10: '' is not an amount of dollars",)),
        (CUR + "a,b\n", ("line 16: 2 values where the header has 10",)),
        (CUR.replace("1.0000000000,USD", "1.0000000000,EUR", 1), ("line 2: line_item_currency_code is 'EUR'",)),
        (
            CUR.replace("T12:00:00.000Z,2026-11-20T13", "T14:00:00.000Z,2026-11-20T13", 1),
            ("line 2: line_item_usage_end",),
        ),
        (CUR + '"open', ("line 16: unexpected end of data",)),
    ],
)
def test_a_malformed_export_is_refused_with_every_line(text: str, said: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as refused:
        parse_cur("cur.csv", text)
    assert len(refused.value.details) == len(said)
    assert all(detail.startswith(start) for detail, start in zip(refused.value.details, said, strict=True))


def test_a_run_that_is_bought_cheaper_than_the_feed_says_is_not_reconciled() -> None:
    # The whole bill at other prices: every hour of every spot node differs.
    rows = [replace(row, price=row.price - 100_000) for row in run.PRICES]
    other = make_bill(run.RUN, run.NODES, rows, run.LISTED, at(20_000))
    assert len(reconcile(other, parse_feed("feed", FEED), []).differences) == 7
