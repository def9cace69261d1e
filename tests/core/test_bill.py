"""The bill against calculations done by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.bill import bill_instance, make_bill, price_in_force, split_hours
from orchestrator.core.estimates import ebs_charge
from orchestrator.core.facts import Instance, OnDemandPrice, PriceRow, Volume
from tests.core.worlds import T0, at, instance

LISTED = {"p3.16xlarge": OnDemandPrice("p3.16xlarge", 24_480_000, "test", T0)}


def row(seconds: float, price: int, zone: str = "us-east-1a") -> PriceRow:
    return PriceRow(zone, "p3.16xlarge", at(seconds), price)


def ended(seconds: float, reason: str = "Client.UserInitiatedShutdown") -> Instance:
    return instance(0, "terminated", end_time=at(seconds), end_reason=reason)


def test_each_instance_hour_has_the_price_in_force_when_it_began() -> None:
    rows = [row(-900, 3_000_000), row(1800, 6_000_000), row(3600, 4_000_000)]
    line = bill_instance(ended(5400.2), rows, LISTED, at(9999))
    # Hour one at 3 $/h in full; hour two began at 4 $/h and used 1801 seconds of it: 4 * 1801/3600 = 2.001111...
    assert [(hour.seconds, hour.price, hour.usd) for hour in line.hours] == [
        (3600, 3_000_000, 3_000_000),
        (1801, 4_000_000, 2_001_111),
    ]
    assert line.usd == 5_001_111
    assert line.on_demand_usd == 24_480_000 + 12_246_800


def test_a_change_between_two_hours_does_not_touch_the_first() -> None:
    assert (
        bill_instance(ended(3599), [row(-1, 3_000_000), row(5, 9_000_000)], LISTED, at(0)).hours[0].price == 3_000_000
    )


@pytest.mark.parametrize(("lived", "billed"), [(0, 60), (3, 60), (60, 60), (60.001, 61), (61, 61)])
def test_seconds_are_rounded_up_and_at_least_sixty(lived: float, billed: int) -> None:
    assert bill_instance(ended(lived), [row(-1, 3_600_000_000)], LISTED, at(0)).usd == billed * 1_000_000


def test_half_a_micro_dollar_goes_to_the_even_neighbour() -> None:
    # 60 s at 30 and at 90 micro-dollars an hour: 0.5 and 1.5 micro-dollars, both rounded to the even one.
    assert bill_instance(ended(60), [row(-1, 30)], LISTED, at(0)).usd == 0
    assert bill_instance(ended(60), [row(-1, 90)], LISTED, at(0)).usd == 2


@pytest.mark.parametrize(
    ("lived", "reason", "free"),
    [
        (1800, "Server.SpotInstanceTermination", True),
        (3600, "Server.SpotInstanceTermination", True),
        (3601, "Server.SpotInstanceTermination", False),
        (1800, "Client.UserInitiatedShutdown", False),
        (1800, "Client.InstanceInitiatedShutdown", False),
    ],
)
def test_only_what_ec2_takes_within_the_first_hour_may_be_free(lived: float, reason: str, free: bool) -> None:
    line = bill_instance(ended(lived, reason), [row(-1, 3_000_000)], LISTED, at(0))
    assert line.usd > 0
    assert line.low == (0 if free else line.usd)


def test_an_unknown_spot_price_is_charged_at_the_ceiling_and_said() -> None:
    line = bill_instance(ended(3600), [row(10, 3_000_000)], LISTED, at(0))
    assert (line.usd, line.price_known) == (24_480_000, False)


def test_prices_of_other_zones_and_types_do_not_count() -> None:
    rows = [row(-5, 3_000_000), row(-1, 1, zone="us-east-1b"), replace(row(-1, 2), instance_type="p4d.24xlarge")]
    assert bill_instance(ended(3600), rows, LISTED, at(0)).usd == 3_000_000


def test_on_demand_nodes_cost_the_list_price() -> None:
    line = bill_instance(replace(ended(3600), lifecycle="on-demand"), [row(-1, 3_000_000)], LISTED, at(0))
    assert line.usd == line.on_demand_usd == 24_480_000


def test_running_instances_are_charged_up_to_now_and_the_bill_is_not_final() -> None:
    bill = make_bill("run", [instance(0)], [row(-1, 3_600_000)], LISTED, at(100))
    assert (bill.instances[0].seconds, bill.instances[0].usd, bill.final) == (100, 100_000, False)


def test_totals_are_sums_of_rounded_lines_and_hold_every_generation() -> None:
    items = [ended(100), replace(instance(1, "terminated", end_time=at(5000)), generation=2, launch_time=at(4000))]
    bill = make_bill("run", items, [row(-1, 3_000_000)], LISTED, at(9000))
    assert bill.high == sum(i.usd for i in bill.instances) + sum(o.usd for o in bill.other)
    assert bill.on_demand == sum(i.on_demand_usd for i in bill.instances) + sum(o.usd for o in bill.other)
    assert [o.id for o in bill.other] == ["vol-0", "vol-1"]
    assert bill.saving == bill.on_demand - bill.high
    assert bill.final


def test_the_json_form_has_six_places_and_utc_times() -> None:
    value = make_bill("run", [ended(100)], [row(-1, 3_600_000)], LISTED, at(9000)).to_json()
    line = value["instances"][0]
    assert (line["usd"], line["start"], line["end"]) == ("0.100000", "2026-11-20T12:00:00Z", "2026-11-20T12:01:40Z")
    assert line["hours"] == [
        {"start": "2026-11-20T12:00:00Z", "seconds": 100, "price_usd": "3.600000", "usd": "0.100000"}
    ]


def test_storage_is_per_second_of_a_thirty_day_month() -> None:
    # AWS's own example: 2000 GB of gp3 at $0.08 for 12 hours of a 30-day month is $2.67.
    assert round(ebs_charge(Volume("v", 2000, "gp3"), 12 * 3600) / 10_000) == 267


@given(st.integers(1, 400_000))
def test_hours_add_up_to_the_seconds(seconds: int) -> None:
    hours = split_hours(T0, seconds)
    assert sum(used for _, used in hours) == seconds
    assert all(0 < used <= 3600 for _, used in hours)
    assert [start for start, _ in hours] == [T0 + timedelta(hours=k) for k in range(len(hours))]


@given(
    st.lists(st.tuples(st.integers(-10_000, 10_000), st.integers(1, 10**8)), max_size=20), st.integers(-10_000, 10_000)
)
def test_the_price_in_force_is_the_last_change_before(changes: Sequence[tuple[int, int]], moment: int) -> None:
    rows = [row(seconds, price) for seconds, price in dict(changes).items()]
    before = {r.time: r.price for r in rows if r.time <= at(moment)}
    expected = before[max(before)] if before else None
    assert price_in_force(reversed(rows), at(moment)) == expected
