"""The prices `orch simulate` charges: from a file, from flags, or those of the plan. Replays nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import BadInput, NoCapacity, NoPermission, Unreachable

if TYPE_CHECKING:
    from orchestrator.core.traces import Prices, Traces
    from orchestrator.core.units import MicroUSD
    from orchestrator.run.traces import TraceFile

FLAGS_HINT = "give --spot-price and --on-demand-price"
_FLAT = re.compile(r"(?:([a-z0-9][a-z0-9-]*)=)?(\d{1,6}(?:\.\d+)?)")
_DOLLARS = re.compile(r"\d{1,6}(?:\.\d+)?")


def given_prices(
    files: tuple[TraceFile, ...], given: dict[str, Any], faults: list[str]
) -> dict[str, tuple[MicroUSD, ...]]:
    """Return the spot prices given by file and flag, by zone; a flag has the last word."""
    from orchestrator.core.units import to_micro
    from orchestrator.run.traces import read_prices

    path = given["prices"]
    found = read_prices(Path(path), files, faults) if path else {}
    if path is None and given["price_gap"] is not None:
        faults.append("--price-gap needs --prices")
    zones = [file.zone for file in files]
    for text in given["flat"]:
        match = _FLAT.fullmatch(text)
        if match is None:
            faults.append(f"--spot-price must be DOLLARS or ZONE=DOLLARS, not {text!r}")
        elif match[1] is not None and match[1] not in zones:
            faults.append(f"--spot-price {text}: there is no trace of {match[1]}")
        else:
            found |= dict.fromkeys([match[1]] if match[1] else zones, (to_micro(match[2]),))
    price = given["on_demand_price"]
    if price is not None and _DOLLARS.fullmatch(price) is None:
        faults.append(f"--on-demand-price must be an amount of dollars, not {price!r}")
    if path or given["flat"]:
        faults.extend(
            f"no spot price of {zone}; give --spot-price {zone}=DOLLARS" for zone in zones if not found.get(zone)
        )
    elif price is not None:
        faults.append("--on-demand-price needs --prices or --spot-price beside it")
    return found


def short_prices(path: str, known: dict[str, tuple[MicroUSD, ...]], gap: int, traces: Traces) -> list[str]:
    """Return a fault for each zone whose prices, one each `gap` seconds, end before the traces do; one is flat."""
    from orchestrator.core.units import format_duration

    return [
        f"{path}: prices of {zone} last {format_duration(len(series) * gap)}, the traces "
        f"{format_duration(traces.seconds)}; give more of them, or their --price-gap"
        for zone, series in known.items()
        if len(series) > 1 and len(series) * gap < traces.seconds
    ]


def make_prices(
    traces: Traces, known: dict[str, tuple[MicroUSD, ...]], given: dict[str, Any], gap: int
) -> tuple[Prices, str]:
    """Return the prices given, a series or one for each zone traced, and where they are from."""
    from orchestrator.core.traces import Prices
    from orchestrator.core.units import to_micro

    source = f"{given['prices']}, one each {gap}s" if given["prices"] else "flat, as given"
    return Prices(gap, tuple(known[zone] for zone in traces.zones), to_micro(given["on_demand_price"])), source


def planned_prices(text: str, cloud: str | None, given: dict[str, Any], traces: Traces) -> tuple[Prices, str, float]:
    """Return the prices of the first type with one in every zone, where they are from, and its time beside the first's.

    Raises BadInput naming zones without a price, and what planning raises, with the way around it.
    """
    from orchestrator.cli.plan import prepare_run
    from orchestrator.core.catalog import relative_hours
    from orchestrator.core.traces import Prices

    try:
        _, _, _, prepared = prepare_run(text, cloud, given, quiet=True)
    except (NoCapacity, NoPermission, Unreachable) as error:
        error.hint = f"{FLAGS_HINT}, and no cloud is asked; or: {error.hint}"
        raise
    wanted = [option.instance_type for option in prepared.experiment.resources.any_of]
    ratios = {name: 1.0 if name == wanted[0] else relative_hours(name, wanted[0]) for name in wanted}
    spot = {(item.instance_type, item.zone): item for item in prepared.plan.offers if item.lifecycle == "spot"}
    for name, ratio in ratios.items():
        offers = [spot[name, zone] for zone in traces.zones if (name, zone) in spot]
        if ratio is not None and len(offers) == len(traces.zones):
            prices = Prices(traces.gap, tuple((offer.price,) for offer in offers), offers[0].on_demand)
            return prices, f"{name}, of the plan, as if they never changed", ratio
    missing = [zone for zone in traces.zones if (wanted[0], zone) not in spot]
    raise refused([f"the plan has no spot price of {wanted[0]} in {zone}; {FLAGS_HINT}" for zone in missing])


def refused(faults: list[str]) -> BadInput:
    """Return the error that tells all faults."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return BadInput(
        f"nothing was replayed: {count}", "mend what is listed; docs/simulate.md has the formats", details=tuple(faults)
    )
