"""The Pricing API (`GetProducts`) over the sandbox's price list, in AWS's own shape.

Beside each Linux on-demand product stand those that a careless filter lets through, as in AWS's list: Windows,
dedicated tenancy, reserved capacity at price zero, software included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from orchestrator.core.units import MICRO, MicroUSD
from orchestrator.sandbox import catalogue
from orchestrator.sandbox.price_list import ON_DEMAND, WINDOWS_PER_VCPU
from orchestrator.sandbox.wire import Call, Refused, Reply

EFFECTIVE = "2026-07-01T00:00:00Z"
PAGE = 100
_LOCATIONS = {
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-2": "US West (Oregon)",
    "eu-west-1": "EU (Ireland)",
    "eu-central-1": "EU (Frankfurt)",
    "ap-northeast-1": "Asia Pacific (Tokyo)",
}


def answer(call: Call, action: str, region: str) -> Reply:
    """Answer a call of the Pricing API for the prices of `region`. Raises Refused for what it does not know."""
    if action != "GetProducts":
        raise Refused("UnknownOperationException", f"the sandbox's Pricing API has no {action}")
    parameters: dict[str, Any] = json.loads(call.body or b"{}")
    if parameters.get("ServiceCode") != "AmazonEC2":
        raise Refused("InvalidParameterException", "Input Parameters are invalid. No such service.")
    wanted = [(f["Field"], f["Value"]) for f in parameters.get("Filters", []) if f.get("Type") == "TERM_MATCH"]
    found = [json.dumps(item) for item in products(region) if all(_field(item, key) == value for key, value in wanted)]
    start = int(parameters.get("NextToken") or 0)
    end = start + min(int(parameters.get("MaxResults") or PAGE), PAGE)
    body: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": found[start:end]}
    if end < len(found):
        body["NextToken"] = str(end)
    return Reply(200, {"content-type": "application/x-amz-json-1.1"}, json.dumps(body).encode())


def _field(item: dict[str, Any], name: str) -> str | None:
    if name in {"serviceCode", "ServiceCode"}:
        return str(item["serviceCode"])
    product: dict[str, Any] = item["product"]
    return str(product["productFamily"]) if name == "productFamily" else product["attributes"].get(name)


def products(region: str) -> Iterator[dict[str, Any]]:
    """Yield every product of the price list of `region`."""
    linux = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}
    for name, price in ON_DEMAND.items():
        windows = price + WINDOWS_PER_VCPU * catalogue.vcpus(name)
        for kind, cost in (
            (linux, price),
            (linux | {"operatingSystem": "Windows"}, windows),
            (linux | {"tenancy": "Dedicated"}, price * 11 // 10),
            (linux | {"preInstalledSw": "SQL Std"}, price + 2 * WINDOWS_PER_VCPU * catalogue.vcpus(name)),
            (linux | {"capacitystatus": "AllocatedCapacityReservation"}, 0),
            (linux | {"capacitystatus": "UnusedCapacityReservation"}, price),
        ):
            yield _product(region, name, kind, cost)


def _product(region: str, name: str, kind: dict[str, str], price: MicroUSD) -> dict[str, Any]:
    digest = hashlib.sha256(f"{region}/{name}/{sorted(kind.items())}".encode()).hexdigest()
    sku, term, rate = digest[:16].upper(), "JRTCKXETXF", "6YS6EN2CT7"
    attributes = {
        "servicecode": "AmazonEC2",
        "servicename": "Amazon Elastic Compute Cloud",
        "location": _LOCATIONS.get(region, region),
        "locationType": "AWS Region",
        "regionCode": region,
        "instanceType": name,
        "currentGeneration": "Yes",
        "instanceFamily": "GPU instance" if name[0] in "pg" else "General purpose",
        "vcpu": str(catalogue.vcpus(name)),
        "licenseModel": "No License required",
        "usagetype": f"BoxUsage:{name}",
        "operation": "RunInstances",
        "marketoption": "OnDemand",
        **kind,
    }
    dimension = {
        "unit": "Hrs",
        "beginRange": "0",
        "endRange": "Inf",
        "rateCode": f"{sku}.{term}.{rate}",
        "appliesTo": [],
        "description": f"${Decimal(price) / MICRO} per On Demand {kind['operatingSystem']} {name} Instance Hour",
        "pricePerUnit": {"USD": f"{Decimal(price) / MICRO:.10f}"},
    }
    offer = {
        "offerTermCode": term,
        "sku": sku,
        "effectiveDate": EFFECTIVE,
        "termAttributes": {},
        "priceDimensions": {f"{sku}.{term}.{rate}": dimension},
    }
    return {
        "serviceCode": "AmazonEC2",
        "version": "20260701000000",
        "publicationDate": EFFECTIVE,
        "product": {"productFamily": "Compute Instance", "sku": sku, "attributes": attributes},
        "terms": {"OnDemand": {f"{sku}.{term}": offer}},
    }
