from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.aws.prices import Prices, read_snapshot, within
from orchestrator.aws.session import Session
from orchestrator.core.facts import PriceRow
from orchestrator.core.settings import Settings
from tests.aws.aws_wire import Form, Reply, Wire, ec2_reply, json_error, json_reply

START = datetime(2026, 11, 20, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
LINUX, VPC = "Linux/UNIX", "Linux/UNIX (Amazon VPC)"


def row(zone: str, hours: float, price: int) -> PriceRow:
    return PriceRow(zone, "p3dn.24xlarge", START + hours * HOUR, price)


def history(pages: list[list[tuple[str, str, float, str]]], wire: Wire) -> None:
    """Answer with pages of (product, zone, hours from START, dollars)."""

    def answer(form: Form) -> Reply:
        number = int(form.get("NextToken", "0") or "0")
        items = "".join(
            f"<item><instanceType>p3dn.24xlarge</instanceType><productDescription>{product}</productDescription>"
            f"<spotPrice>{price}</spotPrice><timestamp>{(START + hours * HOUR).isoformat()}</timestamp>"
            f"<availabilityZone>{zone}</availabilityZone></item>"
            for product, zone, hours, price in pages[number]
        )
        token = number + 1 if number + 1 < len(pages) else ""
        inner = f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken>{token}</nextToken>"
        return ec2_reply("DescribeSpotPriceHistory", inner)

    wire.answer("DescribeSpotPriceHistory", answer)


def test_every_page_counts_and_each_change_once(session: Session, wire: Wire) -> None:
    history(
        [
            [(LINUX, "us-east-1a", -2.0, "3.261100"), (VPC, "us-east-1a", -2.0, "3.261100")],
            [],
            [(VPC, "us-east-1a", 0.5, "3.3"), (LINUX, "us-east-1b", 0.25, "9.1234567")],
        ],
        wire,
    )
    found = Prices(session).spot_history(["p3dn.24xlarge"], START, START + HOUR)
    assert found == (
        row("us-east-1a", -2.0, 3_261_100),
        row("us-east-1b", 0.25, 9_123_457),
        row("us-east-1a", 0.5, 3_300_000),
    )
    sent = wire.forms[-1]
    assert {sent["ProductDescription.1"], sent["ProductDescription.2"]} == {LINUX, VPC}
    assert sent["StartTime"].startswith("2026-11-20T20:00:00")


def test_of_the_past_only_the_price_in_force_at_the_start_is_kept() -> None:
    rows = [row("a", -3, 1), row("a", -1, 2), row("a", 0, 3), row("a", 0.5, 4), row("a", 2, 5), row("b", -1, 6)]
    assert within(reversed(rows), START, START + HOUR) == (row("b", -1, 6), row("a", 0, 3), row("a", 0.5, 4))


def test_of_two_prices_at_one_moment_the_higher_is_kept() -> None:
    assert within([row("a", 0.5, 4), row("a", 0.5, 5), row("a", 0.5, 3)], START, START + HOUR) == (row("a", 0.5, 5),)


def test_no_types_have_no_prices_and_need_no_call(session: Session, wire: Wire) -> None:
    assert Prices(session).spot_history([], START, START) == ()
    assert wire.calls == []


def product(*dollars: str) -> str:
    dimensions = {f"d{n}": {"pricePerUnit": {"USD": amount}, "unit": "Hrs"} for n, amount in enumerate(dollars)}
    return json.dumps({"product": {}, "terms": {"OnDemand": {"t": {"priceDimensions": dimensions}}}})


def asked(form: Form) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(form["json"])
    return {item["Field"]: item["Value"] for item in request["Filters"]}


def test_an_on_demand_price_is_asked_for_by_every_filter_that_makes_it_unique(session: Session, wire: Wire) -> None:
    wire.answer("GetProducts", lambda _: json_reply({"PriceList": [product("0.0000000000", "31.2120000000")]}))
    found = Prices(session).on_demand(["p3dn.24xlarge"])["p3dn.24xlarge"]
    assert found.price == 31_212_000
    assert found.source == "AWS Pricing API, us-east-1"
    assert abs(found.time - datetime.now(UTC)) < timedelta(minutes=5)
    assert asked(wire.forms[-1]) == {
        "instanceType": "p3dn.24xlarge",
        "regionCode": "us-east-1",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
        "productFamily": "Compute Instance",
    }


@pytest.mark.parametrize("reply", [json_error("AccessDeniedException"), json_reply({"PriceList": []})])
def test_where_the_api_says_nothing_the_snapshot_serves_and_says_so(session: Session, wire: Wire, reply: Reply) -> None:
    wire.answer("GetProducts", lambda _: reply)
    found = Prices(session).on_demand(["p4d.24xlarge", "x9.huge"])
    assert set(found) == {"p4d.24xlarge"}
    assert found["p4d.24xlarge"].price == 21_957_642
    assert "snapshot" in found["p4d.24xlarge"].source
    assert "2026-07-20" in found["p4d.24xlarge"].source
    assert found["p4d.24xlarge"].time == datetime(2026, 7, 20, tzinfo=UTC)


def test_the_snapshot_of_one_region_says_nothing_of_another(wire: Wire) -> None:
    wire.answer("GetProducts", lambda _: json_error("AccessDeniedException"))
    elsewhere = Session(Settings("test", "eu-west-1", wire.endpoint, "a", "b"))
    assert Prices(elsewhere).on_demand(["p4d.24xlarge"]) == {}
    assert read_snapshot("eu-west-1") == {}
