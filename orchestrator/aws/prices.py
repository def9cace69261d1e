"""Prices with where and when they were read: spot by its history, on-demand by the Pricing API. Computes no bill."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.resources import files
from typing import Any

from orchestrator.aws.errors import call, call_pages
from orchestrator.aws.session import Session
from orchestrator.core.facts import OnDemandPrice, PriceRow
from orchestrator.core.units import MicroUSD, parse_time, to_micro
from orchestrator.errors import NoPermission, NotFound, Unreachable

# EC2 lists the same price under both names, the second from the time before every account had a VPC.
PRODUCTS = ("Linux/UNIX", "Linux/UNIX (Amazon VPC)")
PRICING_API = "AWS Pricing API"
SNAPSHOT = "on_demand_snapshot.json"


class Prices:
    """The prices of one region."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def spot_history(self, instance_types: Sequence[str], start: datetime, end: datetime) -> tuple[PriceRow, ...]:
        """Return every change of price in [start, end] and the one in force at `start`, oldest first, each once.

        Raises NoPermission, Unreachable.
        """
        if not instance_types:
            return ()
        replies = call_pages(
            "ec2:DescribeSpotPriceHistory",
            self._session.client("ec2"),
            "describe_spot_price_history",
            InstanceTypes=list(instance_types),
            ProductDescriptions=list(PRODUCTS),
            StartTime=start,
            EndTime=end,
        )
        return within((_row(item) for reply in replies for item in reply["SpotPriceHistory"]), start, end)

    def on_demand(self, instance_types: Iterable[str]) -> dict[str, OnDemandPrice]:
        """Return the hourly on-demand price (Linux, shared tenancy) of each type that has one.

        Where the Pricing API says nothing the snapshot shipped with orch serves, and `source` says so.
        """
        snapshot = read_snapshot(self._session.region)
        found = {name: self._listed(name) or snapshot.get(name) for name in instance_types}
        return {name: price for name, price in found.items() if price is not None}

    def _listed(self, instance_type: str) -> OnDemandPrice | None:
        wanted = {
            "instanceType": instance_type,
            "regionCode": self._session.region,
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
            "marketoption": "OnDemand",
            "productFamily": "Compute Instance",
        }
        request = {
            "ServiceCode": "AmazonEC2",
            "Filters": [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()],
        }
        client = self._session.client("pricing")
        try:
            reply = call("pricing:GetProducts", lambda: client.get_products(**request))
        except (NoPermission, NotFound, Unreachable):
            return None
        prices = [price for product in reply["PriceList"] for price in _dollars(json.loads(product))]
        if not prices:
            return None
        read_at = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
        return OnDemandPrice(instance_type, max(prices), f"{PRICING_API}, {self._session.region}", read_at)


def within(rows: Iterable[PriceRow], start: datetime, end: datetime) -> tuple[PriceRow, ...]:
    """Return the rows in [start, end] and, for each zone and type, the last one before `start`; each once, in order.

    Where one moment has two prices the higher one is kept: a bill never under-reports.
    """
    best: dict[tuple[str, str, datetime], PriceRow] = {}
    for row in rows:
        key = (row.zone, row.instance_type, row.time)
        if row.time <= end and (key not in best or best[key].price < row.price):
            best[key] = row
    ordered = sorted(best.values(), key=lambda row: (row.time, row.zone, row.instance_type))
    in_force = {(row.zone, row.instance_type): row for row in ordered if row.time <= start}
    return tuple(row for row in ordered if row.time > start or in_force[row.zone, row.instance_type] is row)


def read_snapshot(region: str) -> dict[str, OnDemandPrice]:
    """Return the on-demand prices of a region that were known when this version of orch was made, if any."""
    value = json.loads(files("orchestrator.aws").joinpath(SNAPSHOT).read_text())
    source = f"snapshot shipped with orch ({value['source']})"
    return {
        name: OnDemandPrice(name, to_micro(dollars), source, parse_time(value["time"]))
        for name, dollars in value["regions"].get(region, {}).items()
    }


def _row(item: Mapping[str, Any]) -> PriceRow:
    moment = item["Timestamp"].astimezone(UTC)
    return PriceRow(item["AvailabilityZone"], item["InstanceType"], moment, to_micro(item["SpotPrice"]))


def _dollars(product: Mapping[str, Any]) -> list[MicroUSD]:
    """Return the hourly prices in a product of the price list, leaving out the zeros of terms that do not apply."""
    dimensions = (
        dimension
        for term in product.get("terms", {}).get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
    )
    prices = (to_micro(dimension["pricePerUnit"].get("USD", "0")) for dimension in dimensions)
    return [price for price in prices if price]
