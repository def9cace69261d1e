"""Durations, sizes and money."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.core.units import (
    counted,
    divide,
    first_of,
    format_duration,
    format_rate,
    format_size,
    format_usd,
    iso,
    listed,
    parse_duration,
    parse_time,
    per_hour,
    to_micro,
    usd,
)
from tests.core.worlds import spec
from trainer import words


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("45", 45), (45, 45)]
)
def test_durations_are_read_as_written(text: str | int, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


def test_of_many_names_the_first_are_told_and_how_many_more_there_are() -> None:
    assert [first_of(list("abcde"[:count]), 3) for count in (0, 1, 3, 4)] == ["", "a", "a, b, c", "a, b, c and 1 more"]


def test_what_there_is_not_any_of_is_not_listed_as_none() -> None:
    assert [listed(names) for names in ((), ("a",), ("a", "b"))] == [
        "there are none",
        "there are: a",
        "there are: a, b",
    ]


def test_one_of_a_kind_is_said_as_one() -> None:
    for say in (counted, words.counted):
        assert [say(number, "GPU") for number in (0, 1, 8, 1200)] == ["0 GPUs", "1 GPU", "8 GPUs", "1,200 GPUs"]
    gangs = (spec(1), spec(16), spec(16, min_nodes=8), spec(1, min_nodes=1))
    assert [gang.experiment.how_many("node") for gang in gangs] == ["1 node", "16 nodes", "8 to 16 nodes", "1 node"]


@pytest.mark.parametrize("text", ["", "0s", "-5m", "5 minutes", "1h1h", "m", "91d", "1.5h", "५m", True])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(("seconds", "text"), [(45, "45s"), (750, "12m30s"), (3720, "1h02m"), (0, "0s")])
def test_durations_are_written_for_people(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(-(10**15), 10**15))
def test_dollars_survive_their_decimal_form(amount: int) -> None:
    assert to_micro(usd(amount)) == amount


@pytest.mark.parametrize("text", ["", "x", "NaN", "inf", "1e999999"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="dollars"):
        to_micro(text)


def test_money_for_people_shows_cents_or_finer() -> None:
    assert [format_usd(value) for value in (12_340_000, 4_200, 0, 1_234_567_890)] == [
        "$12.34",
        "$0.0042",
        "$0.00",
        "$1,234.57",
    ]


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_splitting_a_charge_moves_it_by_at_most_a_micro_dollar(price: int, first: int, second: int) -> None:
    assert abs(per_hour(price, first + second) - per_hour(price, first) - per_hour(price, second)) <= 1


@given(st.integers(-(10**18), 10**18), st.sampled_from([2, 3600, 30 * 86_400]))
@example(1, 2)
@example(3, 2)
def test_a_division_rounds_half_to_even(amount: int, by: int) -> None:
    assert divide(amount, by) == round(Fraction(amount, by))


def test_times_are_utc_and_never_naive() -> None:
    assert iso(parse_time("2026-11-20T13:00:00+01:00")) == "2026-11-20T12:00:00Z"
    with pytest.raises(ValueError, match="time zone"):
        parse_time("2026-11-20T13:00:00")
    with pytest.raises(ValueError, match="without a zone"):
        iso(datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None))


def test_rates_of_networks_are_decimal_and_never_nothing() -> None:
    rates = (15.7e6, 1.25e9, 1.5e6, 250e3)
    assert [format_rate(rate) for rate in rates] == ["16 MB/s", "1.25 GB/s", "1.5 MB/s", "250 kB/s"]


def test_sizes() -> None:
    assert [format_size(size) for size in (12, 1536, 1.5 * 2**30, 3 * 2**40)] == [
        "12 B",
        "1.5 KiB",
        "1.5 GiB",
        "3.0 TiB",
    ]
