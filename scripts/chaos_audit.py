"""What is true in the end: the right answer, what was leaked, dollars by a meter of its own. Shares no code with orch.

The meter goes by the sandbox's record of each instance's life and EC2's price history.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from tests.e2e.recompute import CENT, price_at

Line = Mapping[str, Any]


def faults_of_answer(lines: Sequence[Line], nodes: int) -> list[str]:
    """Return what is wrong with the steps written down: a weight, a gap, or no end."""
    found, right, ranks = [], {0: 1}, nodes * (nodes + 1) // 2
    for step in range(1, max((line["step"] for line in lines), default=0) + 1):
        right[step] = (right[step - 1] * 31 + ranks * step) % 1_000_003
    before = 0
    seen: set[int] = set()
    for line in (line for line in lines if "event" not in line):
        step, generation = line["step"], line["generation"]
        if line["weight"] != right[step]:
            found.append(f"generation {generation} has weight {line['weight']} at step {step}, not {right[step]}")
        begins = generation not in seen
        if (step > before + 1) if begins else (step != before + 1):
            found.append(f"generation {generation} comes to step {step} after step {before}")
        seen.add(generation)
        before = step
    if not lines or lines[-1].get("event") != "finished":
        found.append("the training did not come to its end")
    return found


def leaked_instances(status: Line) -> list[str]:
    """Return the instances that are not terminated, and hosts on which something runs."""
    alive = [item["instance_id"] for item in status["instances"] if item["state"] != "terminated"]
    return sorted({*alive, *(host["instance_id"] for host in status["hosts"] if host["pids"])})


def leaked_resources(ec2: Any) -> list[str]:
    """Return whatever else is left in an account that was empty, tagged or not."""
    interfaces = ec2.describe_network_interfaces()["NetworkInterfaces"]
    requests = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    return [
        *(
            item["GroupId"]
            for item in ec2.describe_security_groups()["SecurityGroups"]
            if item["GroupName"] != "default"
        ),
        *(item["GroupName"] for item in ec2.describe_placement_groups()["PlacementGroups"]),
        *(item["KeyName"] for item in ec2.describe_key_pairs()["KeyPairs"]),
        *(item["VolumeId"] for item in ec2.describe_volumes()["Volumes"] if item["State"] != "deleted"),
        *(item["NetworkInterfaceId"] for item in interfaces),
        *(item["SpotInstanceRequestId"] for item in requests if item["State"] in {"open", "active"}),
    ]


def metered(ec2: Any, instances: Iterable[Line]) -> dict[str, Decimal]:
    """Return the dollars of each instance that ever was, at the price in force when each of its hours began."""
    return {item["instance_id"]: _dollars(ec2, item) for item in instances}


def _dollars(ec2: Any, item: Line) -> Decimal:
    start, end = datetime.fromisoformat(item["launch_time"]), datetime.fromisoformat(item["end_time"])
    seconds = max(60, math.ceil((end - start).total_seconds()))
    total = Decimal(0)
    for hour in range(math.ceil(seconds / 3600)):
        price = price_at(ec2, item["instance_type"], item["zone"], start + timedelta(hours=hour))
        used = min(3600, seconds - 3600 * hour)
        total += (price * used / 3600).quantize(CENT, ROUND_HALF_EVEN)
    return total


def unaccounted(billed: Mapping[str, Decimal], meter: Mapping[str, Decimal]) -> tuple[Decimal, Decimal]:
    """Return the dollars that were spent and are in no bill, and those that were billed and not spent."""
    names = billed.keys() | meter.keys()
    nothing = Decimal(0)
    differences = [meter.get(name, nothing) - billed.get(name, nothing) for name in names]
    return sum((d for d in differences if d > 0), nothing), sum((-d for d in differences if d < 0), nothing)
