"""The spot prices of a run's zones over its life, kept beside it in S3 (`prices.jsonl`): EC2 forgets after 90 days."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.aws.s3 import Bucket
from orchestrator.core.facts import OnDemandPrice, PriceRow
from orchestrator.core.ids import Keys
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import iso, parse_time, to_micro, usd
from orchestrator.errors import NotFound


def to_lines(rows: Iterable[PriceRow]) -> bytes:
    """Return the rows as JSON lines, oldest first, each once."""
    ordered = sorted(set(rows), key=lambda r: (r.time, r.zone, r.instance_type))
    values = (
        {"time": iso(r.time), "zone": r.zone, "instance_type": r.instance_type, "price_usd": usd(r.price)}
        for r in ordered
    )
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def from_lines(body: bytes) -> tuple[PriceRow, ...]:
    """Return the rows in `body`. Raises ValueError or KeyError on anything else."""
    values = (json.loads(line) for line in body.splitlines() if line.strip())
    return tuple(
        PriceRow(v["zone"], v["instance_type"], parse_time(v["time"]), to_micro(v["price_usd"])) for v in values
    )


def load(bucket: Bucket, run_id: str) -> tuple[PriceRow, ...]:
    """Return the prices kept with a run; none when nothing was kept yet."""
    try:
        return from_lines(bucket.get(Keys(run_id).prices))
    except NotFound:
        return ()


def save(bucket: Bucket, run_id: str, rows: Iterable[PriceRow]) -> None:
    """Keep the prices with the run."""
    bucket.put(Keys(run_id).prices, to_lines(rows))


def on_demand_of(spec: RunSpec) -> dict[str, OnDemandPrice]:
    """Return the on-demand prices frozen in the spec, by type."""
    return {name: _on_demand(name, value) for name, value in spec.on_demand.items()}


def _on_demand(name: str, value: Mapping[str, Any]) -> OnDemandPrice:
    return OnDemandPrice(name, int(value["price"]), str(value["source"]), parse_time(value["time"]))
