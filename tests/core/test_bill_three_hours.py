"""A whole run's bill against a hand calculation, and what holds for every bill."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.bill import bill_instance, make_bill
from orchestrator.core.estimates import S3Use, ipv4_charge
from orchestrator.core.facts import Instance, PriceRow
from tests.core import three_hours as run
from tests.core.worlds import at, instance


def test_three_hours_with_price_changes_and_two_interruptions_equal_the_hand_calculation() -> None:
    bill = run.three_hours()
    assert {item.instance_id: tuple(h.usd for h in item.hours) for item in bill.instances} == run.HOURS
    assert {item.id: item.usd for item in bill.other} == run.VOLUMES
    assert (bill.low, bill.high, bill.on_demand) == (run.LOW, run.HIGH, run.ON_DEMAND)
    assert bill.saving == run.ON_DEMAND - run.HIGH == 91_805_000
    assert bill.final


@st.composite
def lives(draw: st.DrawFn) -> Instance:
    start = draw(st.integers(0, 20_000))
    ended = draw(st.booleans())
    return instance(
        draw(st.integers(0, 10**9)),
        "terminated" if ended else "running",
        launch_time=at(start),
        end_time=at(start + draw(st.integers(0, 20_000))) if ended else None,
        end_reason=draw(st.sampled_from([run.US, run.TAKEN, None])) if ended else None,
        lifecycle=draw(st.sampled_from(["spot", "on-demand"])),
        zone=draw(st.sampled_from(["us-east-1a", "us-east-1b"])),
        generation=draw(st.integers(1, 3)),
    )


ROWS = st.lists(
    st.builds(
        PriceRow,
        st.sampled_from(["us-east-1a", "us-east-1b"]),
        st.just("p3.16xlarge"),
        st.integers(-5_000, 40_000).map(at),
        st.integers(1, 30_000_000),
    ),
    max_size=12,
    unique_by=lambda row: (row.zone, row.time),
)


@given(st.lists(lives(), max_size=8, unique_by=lambda item: item.instance_id), ROWS, st.randoms(), st.integers(0, 8))
def test_a_bill_is_additive_over_splits_and_blind_to_order(
    nodes: list[Instance], rows: list[PriceRow], chance: Random, cut: int
) -> None:
    now = at(45_000)
    whole = make_bill("run", nodes, rows, run.LISTED, now)
    mixed, shuffled = [*nodes], [*rows, *rows]
    chance.shuffle(mixed)
    chance.shuffle(shuffled)
    assert make_bill("run", mixed, shuffled, run.LISTED, now) == whole
    parts = [make_bill("run", part, rows, run.LISTED, now) for part in (mixed[:cut], mixed[cut:])]
    for total in ("low", "high", "on_demand", "saving"):
        assert sum(getattr(part, total) for part in parts) == getattr(whole, total)
    assert whole.low <= whole.high
    assert all(0 <= item.low <= item.usd for item in whole.instances)


def test_an_end_within_the_first_hour_that_ec2_has_not_explained_may_be_free() -> None:
    line = bill_instance(replace(run.gone(0, 0, 1800), end_reason=None), run.PRICES, run.LISTED, at(0))
    assert (line.low, line.usd) == (0, 3_600_000)
    later = bill_instance(replace(run.gone(0, 0, 3601), end_reason=None), run.PRICES, run.LISTED, at(0))
    assert later.low == later.usd


def test_an_hour_without_a_price_counts_in_the_high_bound_only() -> None:
    line = bill_instance(run.gone(0, -7200, 0), run.PRICES, run.LISTED, at(0))
    assert (line.low, line.usd) == (7_200_000, 24_480_000 + 7_200_000)


def test_a_public_address_costs_half_a_cent_an_hour_unless_it_is_known_to_be_missing() -> None:
    private = instance(0)
    forgotten = replace(run.gone(0, 0, 1800), private_ip=None)
    assert ipv4_charge(private, 3600) is None
    assert ipv4_charge(replace(private, public_ip="3.3.3.3"), 3600) == 5_000
    assert ipv4_charge(forgotten, 10) == 83
    bill = make_bill("run", [forgotten], run.PRICES, run.LISTED, at(0))
    assert [(o.kind, o.id, o.usd) for o in bill.other] == [("ebs", "vol-0", 5_556), ("ipv4", "i-0", 2_500)]


def test_s3_is_estimated_from_objects_bytes_and_time() -> None:
    # 100 objects in 2 requests each, 64 parts of 16 MiB, 1,800 node-seconds: 2,064 at $5 a million. 160 GiB staged:
    # 10,240 GETs at $0.40 a million. 1 GiB for 1,800 s of a month at $0.023.
    use = S3Use(100, 2**30, 160 * 2**30)
    bill = make_bill("run", [run.gone(0, 0, 1800)], run.PRICES, run.LISTED, at(0), s3=use)
    assert [(o.kind, o.usd) for o in bill.other[1:]] == [("s3-requests", 10_320 + 4_096), ("s3-storage", 16)]
    more = make_bill(
        "run", [run.gone(0, 0, 1800)], run.PRICES, run.LISTED, at(0), s3=replace(use, gets=1_000_000, puts=1000)
    )
    assert more.other[1].usd == bill.other[1].usd + 400_000 + 5_000


def test_what_scripts_stored_by_their_own_requests_is_counted_once() -> None:
    # A node of a packing stored 1 GiB in 64 parts, begun and completed: 66 requests that it tells. Beside them are the
    # 1,800 node-seconds at $5 a million, and 1 GiB for 1,800 s of a month at $0.023.
    use = S3Use(0, 0, 0, puts=66, own_bytes=2**30)
    bill = make_bill("run", [run.gone(0, 0, 1800)], run.PRICES, run.LISTED, at(0), s3=use)
    assert [(o.kind, o.usd) for o in bill.other[1:]] == [("s3-requests", (1_800 + 66) * 5), ("s3-storage", 16)]
