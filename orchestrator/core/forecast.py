"""What a run will take and cost, as a range: from earlier runs of the same work, and from the course of prices. Pure.

A range is meant to hold in nine cases of ten. Time comes from what nodes of earlier runs lived, from launch to end, as
they were billed: boot, data, training, saving, interruptions and end are in it. Where there were none it is the table's
guess. Prices come from what runs of that length, begun at any time of the last days, would have cost an hour, in terms
of the price at which they were planned: what is known is the price now.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from orchestrator.core import catalog
from orchestrator.core.bill import price_in_force
from orchestrator.core.estimates import MINIMUM_SECONDS
from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import PriceRow
from orchestrator.core.units import MicroUSD, counted, usd

HISTORY = timedelta(days=7)
# Earlier runs that count: the newest.
MOST_RUNS = 10
# From run to run times differ by so much (one standard deviation of their logarithm), until as many runs say otherwise.
NOISE, NOISE_RUNS = 0.08, 4
# What a table says of a time, or of the speed of a type, may be so far off, either way.
GUESS = 1.5
# Whoever lives shorter is charged a minute.
SHORTEST = MINIMUM_SECONDS / 3600
# From plan to launch.
WAIT = timedelta(minutes=10)
SAMPLES_EVERY = timedelta(hours=1)
# Student's t, 95%: one in twenty is above, one in twenty below. By degrees of freedom, from `NOISE_RUNS` on.
T95 = (2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81, 1.80, 1.78, 1.77)
# What makes the work of two runs the same, of an experiment's keys.
WORK = ("num_nodes", "device", "procs_per_node", "data", "envs", "setup", "run")


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run that finished: what it did (`work_of`), on which type, and the seconds that a node of it was billed for.

    `start` is how many of them went by before the first step, which a faster type does not shorten.
    """

    run_id: str
    work: str
    instance_type: str
    seconds: float
    start: float = 0.0

    def trains(self, ratio: float) -> float:
        """Return the seconds it would have trained on a type that takes `ratio` of the time."""
        return ratio * (self.seconds - self.start)


@dataclass(frozen=True, slots=True)
class Span:
    """A range and what is in its middle; `source` says where it comes from."""

    low: float
    middle: float
    high: float
    source: str


LISTED = Span(1.0, 1.0, 1.0, "the price is the on-demand price")


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a whole gang will take and cost: hours, and micro-dollars with all that the bill has beside machines.

    Each pair is a range that is meant to hold in nine cases of ten. `saving` is a share of the on-demand cost.
    """

    hours: tuple[float, float]
    cost: tuple[MicroUSD, MicroUSD]
    on_demand: tuple[MicroUSD, MicroUSD]
    saving: tuple[float, float]
    sources: tuple[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return what `orch plan --json` says: dollars as strings with six places."""
        return {
            "hours": list(self.hours),
            "cost_usd": [usd(amount) for amount in self.cost],
            "on_demand_cost_usd": [usd(amount) for amount in self.on_demand],
            "saving": [round(share, 4) for share in self.saving],
            "sources": list(self.sources),
        }


def combine(  # noqa: PLR0917 - what a cost is the product of
    hours: Span, price: Span, num_nodes: int, now: MicroUSD, on_demand: MicroUSD, beside: tuple[float, float]
) -> Forecast:
    """Return the forecast of `num_nodes` nodes at the price `now`.

    `beside` is what a node costs beside its machine in the fewest hours, and in the most: some may be due at once.
    """
    low, high = now * price.low, min(now * price.high, max(now, on_demand))
    least, most = beside

    def shortest(hourly: float) -> float:
        return hours.low * hourly + least

    def longest(hourly: float) -> float:
        return hours.high * hourly + most

    return Forecast(
        (hours.low, hours.high),
        (round(num_nodes * shortest(low)), round(num_nodes * longest(high))),
        (round(num_nodes * shortest(on_demand)), round(num_nodes * longest(on_demand))),
        # What is due at once is the same on demand: the shorter a run is, the less it saves.
        (1 - shortest(high) / shortest(on_demand), 1 - longest(low) / longest(on_demand)),
        (hours.source, price.source),
    )


def work_of(experiment: Experiment) -> str:
    """Return what two runs share that do the same work on as many nodes: a digest of what decides how long it takes."""
    values = experiment.to_json()
    # How data gets there is no part of it: an experiment asks for `auto`, of which its run has made something else.
    values["data"] = {name: {**data, "mode": "stage"} for name, data in values["data"].items()}
    text = json.dumps({name: values[name] for name in WORK}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_earlier(report: Mapping[str, Any]) -> Earlier | None:
    """Return the run that a `report.json` tells of, None where it teaches nothing: it did not finish, or is of old."""
    try:
        lines = report["bill"]["instances"]
        if report["phase"] != "finished" or not lines:
            return None
        seconds = sum(int(line["seconds"]) for line in lines) / int(report["num_nodes"])
        last = max(lines, key=lambda line: str(line["start"]))
        start = min(_start(report.get("timing", ())), seconds)
        return Earlier(str(report["run_id"]), str(report["work"]), str(last["instance_type"]), seconds, start)
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _start(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds from a node's launch to the first step of the first gang, 0 where nobody saw it."""
    first = min((int(row["generation"]) for row in rows), default=0)
    stages = [row["stages"] for row in rows if row["generation"] == first and "first step" in row["stages"]]
    lived = [sum(float(took) for stage, took in each.items() if stage != "request") for each in stages]
    return sum(lived) / len(lived) if lived else 0.0


def hours(
    experiment: Experiment, instance_type: str, reference: str, boot: timedelta, earlier: Iterable[Earlier]
) -> Span | None:
    """Return how many hours a node will live on `instance_type`, None where nothing says so.

    `reference` is the type of which `expected_duration` speaks, `boot` what comes before the training.
    """
    work = work_of(experiment)
    mine = [(run, ratio) for run in earlier if run.work == work and (ratio := _ratio(instance_type, run)) is not None]
    same = [item for item in mine if item[0].instance_type == instance_type]
    if mine:
        newest = sorted(same or mine, key=lambda item: item[0].run_id[-20:])[-MOST_RUNS:]
        source = f"time from {counted(len(newest), 'earlier run')} of the same"
        trained = [run.trains(ratio) for run, ratio in newest]
        lived = [run.start + seconds for (run, _), seconds in zip(newest, trained, strict=True)]
        learned = _learned([seconds / 3600 for seconds in lived], source)
        if same:
            return learned
        source += f" on {newest[-1][0].instance_type}, guessed for this type by published speed"
        return _guessed(learned, sum(trained) / sum(lived), source)
    ratio = catalog.relative_hours(instance_type, reference)
    if experiment.expected_duration is None or ratio is None:
        return None
    guess = (experiment.expected_duration * ratio + boot) / timedelta(hours=1)
    source = "time guessed from expected_duration (no run of the same has finished yet)"
    return _guessed(Span(guess, guess, guess, source), 1.0, source)


def _guessed(span: Span, share: float, source: str) -> Span:
    """Return a range as wide as a guess of that share of it makes it."""
    low, high = span.low * (1 - share + share / GUESS), span.high * (1 - share + share * GUESS)
    return Span(max(SHORTEST, low), max(SHORTEST, span.middle), max(SHORTEST, high), source)


def _ratio(instance_type: str, run: Earlier) -> float | None:
    return 1.0 if run.instance_type == instance_type else catalog.relative_hours(instance_type, run.instance_type)


def _learned(values: Sequence[float], source: str) -> Span:
    """Return the range in which the next of such values lies: Student's, with `NOISE` as what is known before any."""
    logs, count = [math.log(value) for value in values], len(values)
    mean = sum(logs) / count
    spread = sum((value - mean) ** 2 for value in logs)
    freedom = NOISE_RUNS + count - 1
    deviation = math.sqrt((NOISE_RUNS * NOISE**2 + spread) / freedom)
    reach = T95[min(count, len(T95)) - 1] * deviation * math.sqrt(1 + 1 / count)
    low, middle, high = (max(SHORTEST, math.exp(mean + way * reach)) for way in (-1, 0, 1))
    return Span(low, middle, high, source)


def prices(rows: Sequence[PriceRow], length: timedelta, now: datetime) -> Span:
    """Return what an hour will cost in terms of the price now (1.0), 10th to 90th percentile.

    `rows` are the changes of one type in one zone, `length` is how long the run will take. It is charged the price in
    force when each of its hours begins.
    """
    oldest = min((row.time for row in rows), default=now)
    seen = max(1, round((now - max(oldest, now - HISTORY)) / timedelta(days=1)))
    days = f"price from the last {counted(seen, 'day')}"
    found = sorted(_ratios(sorted(rows, key=attrgetter("time")), length, max(oldest, now - HISTORY), now))
    if not found:
        return Span(1.0, 1.0, 1.0, "price as it is now")
    return Span(found[len(found) // 10], found[len(found) // 2], found[-1 - len(found) // 10], days)


def _ratios(rows: Sequence[PriceRow], length: timedelta, start: datetime, now: datetime) -> Iterable[float]:
    """Yield, for runs begun at any time of the past, the mean price of their hours over the price at their plan."""
    count = max(1, math.ceil(length / timedelta(hours=1)))
    planned = start
    while planned + WAIT + length <= now:
        began = planned + WAIT
        paid = [price_in_force(rows, began + timedelta(hours=hour)) for hour in range(count)]
        then = price_in_force(rows, planned)
        known = [price for price in paid if price is not None]
        if then and len(known) == count:
            yield sum(known) / count / then
        planned += SAMPLES_EVERY
