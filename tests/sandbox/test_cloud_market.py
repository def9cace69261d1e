"""Conformance: prices, quotas and the catalogue of the sandbox answer as AWS does, in its shapes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import catalog
from orchestrator.sandbox.price_list import ON_DEMAND
from orchestrator.sandbox.prices import BANDS, LIVE_STEP, OTHER_BAND, STEP, TICK, SpotMarket
from orchestrator.sandbox.quotas_api import QUOTAS, quota_code
from tests.sandbox.cloud_fixture import World, refusal, shared_world, world

__all__ = ["shared_world", "world"]

BIRTH = datetime(2026, 11, 20, 12, tzinfo=UTC)
ZONES = ["us-east-1b", "us-east-1c", "us-east-1d", "us-east-1f"]
moments = st.integers(-90 * 86_400, 5 * 86_400).map(lambda seconds: BIRTH + timedelta(seconds=seconds))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.sampled_from(sorted(ON_DEMAND)), st.sampled_from(ZONES), moments)
def test_a_price_depends_on_seed_pool_and_time_alone(seed: int, name: str, zone: str, moment: datetime) -> None:
    price = SpotMarket(seed, ON_DEMAND, BIRTH).price(name, zone, moment)
    low, high = BANDS.get(name.partition(".")[0], OTHER_BAND)
    assert price == SpotMarket(seed, ON_DEMAND, BIRTH).price(name, zone, moment)
    assert low * ON_DEMAND[name] <= price <= high * ON_DEMAND[name] < ON_DEMAND[name]
    assert price % TICK == 0


@settings(max_examples=40, deadline=None)
@given(moments, st.integers(0, 40), st.integers(0, 40))
def test_a_price_in_force_is_the_last_change_before_it(moment: datetime, hours: int, later: int) -> None:
    market = SpotMarket(3, ON_DEMAND, BIRTH)
    end = moment + timedelta(hours=hours)
    changes = market.changes("p3.16xlarge", "us-east-1c", moment, end)
    assert changes[0].time <= moment
    assert all(moment < c.time <= end for c in changes[1:])
    assert all(a.time < b.time for a, b in pairwise(changes))
    assert market.price("p3.16xlarge", "us-east-1c", end) == changes[-1].price
    # What was in force does not change because somebody looks further.
    longer = market.changes("p3.16xlarge", "us-east-1c", moment, end + timedelta(hours=later))
    assert longer[: len(changes)] == changes


def test_prices_move_and_more_often_while_the_sandbox_is_up() -> None:
    market = SpotMarket(0, ON_DEMAND, BIRTH)
    before = market.changes("p3.16xlarge", "us-east-1c", BIRTH - timedelta(days=10), BIRTH)
    after = market.changes("p3.16xlarge", "us-east-1c", BIRTH, BIRTH + timedelta(hours=10))
    assert timedelta(days=10) / STEP * 0.5 < len(before) <= timedelta(days=10) / STEP + 2
    assert timedelta(hours=10) / LIVE_STEP * 0.5 < len(after)
    levels = {market.price("p3.16xlarge", zone, BIRTH) for zone in ZONES}
    assert len(levels) == len(ZONES)


def test_no_price_history_reaches_into_the_future(world: World) -> None:
    rows = history(world, EndTime=datetime.now(UTC) + timedelta(days=2))
    assert max(row["Timestamp"] for row in rows) <= datetime.now(UTC)


def history(world: World, **asked: Any) -> list[dict[str, Any]]:
    query = {"InstanceTypes": ["p3.16xlarge"], "ProductDescriptions": ["Linux/UNIX"]} | asked
    pages = world.ec2.get_paginator("describe_spot_price_history").paginate(**query)
    return [row for page in pages for row in page["SpotPriceHistory"]]


def test_the_history_goes_back_ninety_days_newest_first_in_every_zone_that_sells(world: World) -> None:
    rows = history(world)
    assert {row["AvailabilityZone"] for row in rows} == set(ZONES)
    times = [row["Timestamp"] for row in rows]
    assert times == sorted(times, reverse=True)
    now = datetime.now(UTC)
    assert now - timedelta(days=91) < times[-1] < now - timedelta(days=89)
    assert {row["ProductDescription"] for row in rows} == {"Linux/UNIX"}
    assert all(Decimal("24.48") * Decimal("0.11") <= Decimal(row["SpotPrice"]) <= Decimal("6.3648") for row in rows)


def test_the_row_in_force_at_the_start_is_there_and_none_after_the_end(world: World) -> None:
    now = datetime.now(UTC)
    current = history(world, StartTime=now, EndTime=now)
    assert sorted(row["AvailabilityZone"] for row in current) == ZONES
    start, end = now - timedelta(days=20), now - timedelta(days=18)
    everything = [row for row in history(world) if row["AvailabilityZone"] == "us-east-1c"]
    expected = [row for row in everything if start < row["Timestamp"] <= end]
    expected += [next(row for row in everything if row["Timestamp"] <= start)]
    assert history(world, StartTime=start, EndTime=end, AvailabilityZone="us-east-1c") == expected
    by_filter = [{"Name": "availability-zone", "Values": ["us-east-1c"]}]
    assert history(world, StartTime=start, EndTime=end, Filters=by_filter) == expected


def test_pages_of_prices_are_as_long_as_asked_for_and_miss_none(world: World) -> None:
    query = {"InstanceTypes": ["p3.16xlarge"], "ProductDescriptions": ["Linux/UNIX"], "MaxResults": 7}
    page = world.ec2.describe_spot_price_history(**query, EndTime=datetime.now(UTC))
    assert len(page["SpotPriceHistory"]) == 7
    assert page["NextToken"]
    end = datetime.now(UTC) - timedelta(minutes=1)
    assert history(world, EndTime=end, PaginationConfig={"PageSize": 300}) == history(world, EndTime=end)


def test_without_a_filter_other_products_come_too(world: World) -> None:
    now = datetime.now(UTC)
    rows = history(world, ProductDescriptions=[], StartTime=now, EndTime=now)
    assert {row["ProductDescription"] for row in rows} == {"Linux/UNIX", "Windows"}
    assert history(world, InstanceTypes=["p9.huge"]) == []


@pytest.mark.parametrize(("name", "vcpus", "gib", "gpus"), [("p3.2xlarge", 8, 61, 1), ("p3.16xlarge", 64, 488, 8)])
def test_p3_is_in_the_catalogue(world: World, name: str, vcpus: int, gib: int, gpus: int) -> None:
    (shown,) = world.ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
    assert (shown["VCpuInfo"]["DefaultVCpus"], shown["MemoryInfo"]["SizeInMiB"]) == (vcpus, gib * 1024)
    assert (shown["GpuInfo"]["Gpus"][0]["Count"], shown["Hypervisor"]) == (gpus, "xen")
    assert not shown["NetworkInfo"]["EfaSupported"]
    assert "InstanceStorageInfo" not in shown


def test_offerings_say_which_zones_sell_a_type(world: World) -> None:
    def zones(*types: str) -> set[tuple[str, str]]:
        reply = world.ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": list(types)}]
        )
        return {(o["InstanceType"], o["Location"]) for o in reply["InstanceTypeOfferings"]}

    assert zones("p3.16xlarge") == {("p3.16xlarge", zone) for zone in ZONES}
    assert zones("p3dn.24xlarge") == {("p3dn.24xlarge", "us-east-1c"), ("p3dn.24xlarge", "us-east-1d")}
    assert {name for name, _ in zones("p3.*")} == {"p3.2xlarge", "p3.8xlarge", "p3.16xlarge"}
    assert zones("p9.huge") == set()


def test_types_that_are_none_are_refused_and_all_others_come_in_pages(world: World) -> None:
    unknown = refusal(lambda: world.ec2.describe_instance_types(InstanceTypes=["m5.large", "p9.huge"]))
    assert unknown[0] == "InvalidInstanceType"
    assert "m5.large" not in unknown[2]
    names = [{"Name": "instance-type", "Values": ["p3*", "p4*", "p5*"]}]
    pages = world.ec2.get_paginator("describe_instance_types").paginate(Filters=names, PaginationConfig={"PageSize": 5})
    found = [[t["InstanceType"] for t in page["InstanceTypes"]] for page in pages]
    assert len(found[0]) == 5
    assert {"p3.2xlarge", "p3.16xlarge", "p3dn.24xlarge", "p4d.24xlarge", "p5.48xlarge"} <= set(chain(*found))


def test_placement_scores_are_low_for_one_type(world: World) -> None:
    rows = world.ec2.get_spot_placement_scores(InstanceTypes=["p3.16xlarge"], TargetCapacity=16)["SpotPlacementScores"]
    assert [row["Score"] for row in rows] == [1]


KARPENTER = {
    "serviceCode": "AmazonEC2",
    "regionCode": "us-east-1",
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
    "productFamily": "Compute Instance",
}


def products(world: World, **wanted: str) -> list[dict[str, Any]]:
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    pages = world.client("pricing").get_paginator("get_products").paginate(ServiceCode="AmazonEC2", Filters=filters)
    return [json.loads(item) for page in pages for item in page["PriceList"]]


def dollars(product: dict[str, Any]) -> list[str]:
    terms = product["terms"]["OnDemand"].values()
    return [d["pricePerUnit"]["USD"] for term in terms for d in term["priceDimensions"].values()]


def test_the_pricing_api_gives_one_price_when_asked_with_every_filter(world: World) -> None:
    (product,) = products(world, instanceType="p3.16xlarge", **KARPENTER)
    assert [Decimal(usd) for usd in dollars(product)] == [Decimal("24.48")]
    assert product["product"]["attributes"]["usagetype"] == "BoxUsage:p3.16xlarge"
    everything = products(world, **KARPENTER)
    assert {p["product"]["attributes"]["instanceType"] for p in everything} == set(ON_DEMAND)
    assert len(everything) == len(ON_DEMAND)
    assert products(world, instanceType="p9.huge", **KARPENTER) == []
    assert products(world, **(KARPENTER | {"regionCode": "mars-1"})) == []


@pytest.mark.parametrize("missing", ["operatingSystem", "tenancy", "preInstalledSw", "capacitystatus"])
def test_a_forgotten_filter_lets_other_products_in(world: World, missing: str) -> None:
    fewer = {field: value for field, value in KARPENTER.items() if field != missing}
    assert len(products(world, instanceType="p3.16xlarge", **fewer)) > 1


def test_quotas_are_told_and_can_be_changed(world: World) -> None:
    client = world.client("service-quotas")
    assert client.get_service_quota(ServiceCode="ec2", QuotaCode="L-7212CCBC")["Quota"]["Value"] >= 64 * 96
    world.cloud.set_quota("L-7212CCBC", 1024)
    try:
        quota = client.get_service_quota(ServiceCode="ec2", QuotaCode="L-7212CCBC")["Quota"]
    finally:
        world.cloud.set_quota("L-7212CCBC", 20_000)
    assert (quota["Value"], quota["QuotaCode"], quota["ServiceCode"]) == (1024.0, "L-7212CCBC", "ec2")
    code = refusal(lambda: client.get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000"))[0]
    assert code == "NoSuchResourceException"


def test_every_quota_the_project_asks_for_is_one_that_ec2_counts_by() -> None:
    for item in catalog.TYPES.values():
        assert quota_code(item.name, spot=True) == item.spot_quota
        assert quota_code(item.name, spot=False) == item.on_demand_quota
    assert {i.spot_quota for i in catalog.TYPES.values()} | {i.on_demand_quota for i in catalog.TYPES.values()} <= set(
        QUOTAS
    )
    assert quota_code("trn1.32xlarge", spot=True) is None
