"""`orch prices` against the sandbox's EC2 over HTTP."""

from __future__ import annotations

import json
from datetime import timedelta

from orchestrator.core.facts import PriceRow
from orchestrator.core.market import find_pools
from orchestrator.core.units import parse_time, to_micro
from tests.cli.fake_clouds import Orch
from tests.core.worlds import at
from tests.sandbox.cloud_fixture import REGION, shared_world

__all__ = ["shared_world"]
TYPE = "p3dn.24xlarge"


def test_json_holds_every_zone_now_its_range_and_its_changes(sandboxed: Orch) -> None:
    value = json.loads(sandboxed("prices", TYPE, "--json").stdout)
    assert (value["instance_type"], value["region"], value["on_demand_usd"]) == (TYPE, REGION, "31.212000")
    assert len(value["zones"]) >= 2
    for zone in value["zones"]:
        prices = [to_micro(change["price_usd"]) for change in zone["changes"]]
        times = [parse_time(change["time"]) for change in zone["changes"]]
        assert (to_micro(zone["low_usd"]), to_micro(zone["high_usd"])) == (min(prices), max(prices))
        assert to_micro(zone["now_usd"]) == prices[-1]
        assert min(prices) <= to_micro(zone["mean_usd"]) <= max(prices)
        assert times == sorted(times)
        assert timedelta(days=29) < times[-1] - times[0] < timedelta(days=32)
    nows = [to_micro(zone["now_usd"]) for zone in value["zones"]]
    assert nows == sorted(nows)


def test_days_say_how_far_back(sandboxed: Orch) -> None:
    value = json.loads(sandboxed("prices", TYPE, "--days", "2", "--json").stdout)
    times = [parse_time(change["time"]) for change in value["zones"][0]["changes"]]
    assert times[-1] - times[0] < timedelta(days=3)


def test_a_person_sees_a_row_and_a_chart_for_each_zone(sandboxed: Orch) -> None:
    def now() -> dict[str, str]:
        zones = json.loads(sandboxed("prices", TYPE, "--json").stdout)["zones"]
        return {zone["zone"]: f"{to_micro(zone['now_usd']) / 1e6:.4f}" for zone in zones}

    before, lines, after = now(), sandboxed("prices", TYPE).stdout.splitlines(), now()
    assert before
    for zone in before:
        [row] = [line.split() for line in lines if line.startswith(zone)]
        assert row[1] in (before[zone], after[zone])  # prices move meanwhile
        assert len(row[-1]) == 30
        assert set(row[-1]) <= set("▁▂▃▄▅▆▇█")
        assert len(set(row[-1])) > 3
    assert "on-demand $31.21" in lines[-1]


def test_a_type_that_is_none_is_refused_with_the_nearest(sandboxed: Orch) -> None:
    result = sandboxed("prices", "p3dn.24xlarg")
    assert result.exit_code == 7
    assert "p3dn.24xlarg is not offered in us-east-1" in result.stderr
    assert "did you mean p3dn.24xlarge?" in result.stderr


def test_without_any_cloud_it_says_how_to_get_one(run_orch: Orch) -> None:
    run_orch.cloud.up = []
    assert "no AWS credentials were found" in run_orch("prices", TYPE).stderr


def row(seconds: float, price: int, zone: str = "a") -> PriceRow:
    return PriceRow(zone, TYPE, at(seconds), price)


def test_a_mean_counts_each_price_for_as_long_as_it_held() -> None:
    [pool] = find_pools([row(75, 40), row(-500, 10), row(50, 20)], at(0), at(100))
    assert (pool.now, pool.low, pool.high) == (40, 10, 40)
    assert pool.mean == (50 * 10 + 25 * 20 + 25 * 40) // 100
    assert pool.samples(4) == [10, 20, 40, 40]


def test_a_price_that_began_later_has_no_course_before() -> None:
    [pool] = find_pools([row(75, 40)], at(0), at(100))
    assert (pool.mean, pool.samples(4)) == (40, [40, 40])


def test_the_cheapest_zone_comes_first() -> None:
    pools = find_pools([row(0, 3, "a"), row(0, 2, "c"), row(0, 2, "b")], at(0), at(1))
    assert [pool.zone for pool in pools] == ["b", "c", "a"]
