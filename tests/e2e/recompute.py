"""The bill recomputed from what EC2 itself says, in floating-free arithmetic and without any of orch's billing code."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

CENT = Decimal("0.000001")


def ended(instance: dict[str, Any]) -> datetime:
    """The time in StateTransitionReason: `User initiated (2026-11-20 12:00:00 GMT)`."""
    match = re.search(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)", instance["StateTransitionReason"])
    assert match is not None, instance["StateTransitionReason"]
    return datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)


def spot_dollars(ec2: Any, instance: dict[str, Any]) -> Decimal:
    """Dollars for one instance by the rule printed with the bill."""
    start = instance["LaunchTime"]
    seconds = max(60, math.ceil((ended(instance) - start).total_seconds()))
    total = Decimal(0)
    for hour in range(math.ceil(seconds / 3600)):
        moment = start + timedelta(hours=hour)
        used = min(3600, seconds - 3600 * hour)
        price = price_at(ec2, instance["InstanceType"], instance["Placement"]["AvailabilityZone"], moment)
        total += (price * used / 3600).quantize(CENT, ROUND_HALF_EVEN)
    return total


def price_at(ec2: Any, instance_type: str, zone: str, moment: datetime) -> Decimal:
    rows: list[dict[str, Any]] = []
    for page in ec2.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=[instance_type],
        ProductDescriptions=["Linux/UNIX"],
        AvailabilityZone=zone,
        StartTime=moment - timedelta(days=1),
        EndTime=moment + timedelta(hours=1),
    ):
        rows += page["SpotPriceHistory"]
    before = [row for row in rows if row["Timestamp"] <= moment]
    return Decimal(max(before, key=lambda row: row["Timestamp"])["SpotPrice"])
