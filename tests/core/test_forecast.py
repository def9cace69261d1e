"""Forecasts: what earlier runs and past prices say of the next run, against sums done by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core import forecast
from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import PriceRow
from orchestrator.core.forecast import Earlier, Span, combine, prices, read_earlier, work_of
from orchestrator.core.ledger import Verdict
from orchestrator.report.plan import forecast_lines
from tests.core.test_plan import market, plan
from tests.core.worlds import T0, spec
from tests.report.test_report_plan import printed
from tests.report.views import ended, running

BOOT = timedelta(minutes=4)


def experiment(**changes: Any) -> Experiment:
    values = {
        "name": "tiny",
        "num_nodes": 2,
        "run": "train",
        "resources": {"any_of": [{"instance_type": "p3.16xlarge"}]},
    }
    return Experiment.from_json(values | changes)


def ran(seconds: float, number: int = 0, instance_type: str = "p3.16xlarge", work: str = "") -> Earlier:
    run_id = f"tiny-20261120-12{number:02d}00-abcd"
    return Earlier(run_id, work or work_of(experiment()), instance_type, seconds)


def hours(*earlier: Earlier, on: str = "p3.16xlarge", **changes: Any) -> Span | None:
    return forecast.hours(experiment(**changes), on, "p3.16xlarge", BOOT, earlier)


def test_without_earlier_runs_time_is_a_guess_from_the_table_and_says_so() -> None:
    found = hours(expected_duration="20m")
    assert found is not None
    assert (found.low, found.middle, found.high) == pytest.approx((24 / 60 / 1.5, 24 / 60, 24 / 60 * 1.5))
    assert "no run of the same has finished yet" in found.source
    assert hours() is None
    twice_as_fast = hours(expected_duration="20m", on="p4d.24xlarge")
    assert twice_as_fast is not None
    assert twice_as_fast.middle == pytest.approx((20 / 60) * 1040 / 2078 + 4 / 60)


def test_time_is_that_of_earlier_runs_and_the_more_there_are_the_surer_it_is() -> None:
    widths = []
    for count in (1, 2, 3, 10, 12):
        found = hours(*(ran(3600, n) for n in range(count)), expected_duration="20m")
        assert found is not None
        assert found.middle == pytest.approx(1.0)
        widths.append(found.high / found.low)
        assert f"time from {min(count, 10)} earlier run" in found.source
    for short in (hours(ran(60), ran(60, 1)), hours(ran(60), on="p4d.24xlarge")):
        assert short is not None
        assert short.low == pytest.approx(1 / 60), "a minute is charged in any case"
        assert short.low <= short.middle <= short.high
    assert widths == sorted(widths, reverse=True)
    # One run: 2.13 x 8% x root of 2 either way. Ten that agree: 1.77 x 8% x root(4/13) x root(1.1).
    assert widths[0] == pytest.approx(1.62, abs=0.01)
    assert widths[3] == pytest.approx(1.18, abs=0.01)


def test_the_range_holds_in_nine_cases_of_ten_at_the_noise_that_is_to_be_expected() -> None:
    rng = random.Random(7)  # noqa: S311 - a seed, not a secret
    for noise in (0.03, 0.06, 0.1):
        held = 0
        for _ in range(400):
            times = [1000 * rng.lognormvariate(0, noise) for _ in range(9)]
            found = hours(*(ran(t, n) for n, t in enumerate(times[:8])))
            assert found is not None
            held += found.low <= times[8] / 3600 <= found.high
        assert held >= 400 * 0.85, noise


def test_only_runs_of_the_same_work_count_and_those_of_another_type_only_where_there_are_no_others() -> None:
    other = work_of(experiment(run="something else"))
    assert hours(ran(900, work=other)) is None
    found = hours(ran(900), ran(1800, 1, "p4d.24xlarge"), on="p4d.24xlarge")
    assert found is not None
    assert found.middle == pytest.approx(0.5)
    scaled = hours(ran(3600), on="p4d.24xlarge")
    assert scaled is not None
    assert scaled.middle == pytest.approx(1040 / 2078)
    assert "on p3.16xlarge, guessed for this type by published speed" in scaled.source
    assert scaled.high / scaled.low == pytest.approx(1.62 * 1.5**2, abs=0.03)
    started = hours(replace(ran(3600), start=600), on="p4d.24xlarge")
    assert started is not None
    assert started.middle * 3600 == pytest.approx(600 + 3000 * 1040 / 2078), "what comes before training stays"
    guessed = 1 - 600 / (3600 * started.middle)
    assert started.high / started.middle == pytest.approx(1.62**0.5 * (1 + guessed / 2), abs=0.01), "and is no guess"
    newest = hours(*(ran(3600, n) for n in range(5)), *(ran(7200, n) for n in range(20, 30)))
    assert newest is not None
    assert newest.middle == pytest.approx(2.0)


@pytest.mark.parametrize(("changes", "same"), [({"max_cost": 9, "name": "b"}, True), ({"num_nodes": 3}, False)])
def test_what_makes_work_the_same(changes: dict[str, Any], same: bool) -> None:
    assert (work_of(experiment()) == work_of(experiment(**changes))) is same


def test_a_run_whose_mode_of_data_was_settled_teaches_the_experiment_that_left_it_open() -> None:
    works = {
        work_of(experiment(data={"x": {"source": "s3://bucket/x", "mode": mode}})) for mode in ("auto", "stage", "ebs")
    }
    assert len(works) == 1
    assert work_of(experiment(data={"x": {"source": "s3://bucket/y"}})) not in works


def test_a_report_teaches_what_its_nodes_lived_once_its_run_has_finished() -> None:
    report = ended(Verdict("finished", "done")).report()
    assert read_earlier(report) == Earlier(spec().run_id, work_of(spec(2).experiment), "p3.16xlarge", 190.0)
    stages = [{"request": 9.0, "boot": 30.0, "first step": 1.0}, {"request": 9.0, "boot": 50.0, "first step": 1.0}, {}]
    timing = [{"generation": n // 2 + 1, "stages": each} for n, each in enumerate(stages)]
    told = read_earlier(report | {"timing": timing})
    assert told is not None
    assert told.start == pytest.approx(41.0)
    assert read_earlier(report | {"timing": [7]}) is None
    wrong: list[dict[str, Any]] = [{"phase": "stopped"}, {"num_nodes": 0}, {"bill": {"instances": []}}, {"bill": None}]
    assert [read_earlier(report | change) for change in wrong] == [None] * 4
    assert read_earlier({k: v for k, v in report.items() if k != "work"}) is None
    assert read_earlier(running().report()) is None


def row(hour: float, price: int) -> PriceRow:
    return PriceRow("us-east-1a", "p3.16xlarge", T0 + timedelta(hours=hour), price)


def test_a_price_that_never_moves_is_no_range_and_one_that_is_not_known_neither() -> None:
    calm = prices([row(-100, 5)], timedelta(hours=2), T0)
    assert (calm.low, calm.middle, calm.high, calm.source) == (1.0, 1.0, 1.0, "price from the last 4 days")
    assert prices([], timedelta(hours=2), T0) == Span(1.0, 1.0, 1.0, "price as it is now")


def test_a_long_run_meets_changes_that_a_short_one_does_not() -> None:
    # Every other day it costs half as much again.
    rows = [row(-24 * day, 6 if day % 2 else 4) for day in range(8)]
    short = prices(rows, timedelta(minutes=20), T0)
    assert (short.low, short.high) == (1.0, 1.0)
    long = prices(rows, timedelta(hours=24), T0)
    assert (long.low, long.high) == pytest.approx((0.7, 1.4), abs=0.05)


def test_a_cost_is_hours_times_price_with_all_that_the_bill_has_beside_machines() -> None:
    made = combine(Span(1, 2, 3, "a"), Span(0.5, 1, 2, "b"), 4, 10_000_000, 12_000_000, (1_000_000, 3_000_000))
    assert made.cost == (4 * 6_000_000, 4 * 3 * 13_000_000), "spot never costs more than on-demand"
    assert made.on_demand == (4 * 13_000_000, 4 * 3 * 13_000_000)
    assert made.saving == pytest.approx((0, 7 / 13))
    assert made.to_json()["cost_usd"] == ["24.000000", "156.000000"]


def test_every_offer_of_a_plan_has_its_range_and_the_plan_says_where_it_comes_from() -> None:
    work = replace(ran(1800), work=work_of(experiment(num_nodes=16, run="hostname")))
    made = plan(market(earlier=(work,), now=T0), expected_duration="20m")
    assert [item is not None for item in made.forecasts] == [True] * 3
    first, offer = made.forecasts[0], made.offers[0]
    assert first is not None
    assert first.cost[0] < offer.cost < first.cost[1]
    # 100 GiB of gp3, an address and a request to S3 a second cost $0.0341 an hour beside $3.00.
    assert first.cost[1] / first.hours[1] == pytest.approx(16 * 3_034_111, rel=1e-4)
    text = printed(made)
    assert "time from 1 earlier run of the same" in text
    assert forecast_lines(made)[0] in text
    saves = "saving 88% of the price of a node-hour; 87% of the whole run, with disks, addresses and S3"
    assert saves in " ".join(text.split())
    row = next(line for line in text.splitlines() if "✔" in line)
    assert "-" in row.split()[7]
    assert plan(market()).forecasts == (None,) * 3
