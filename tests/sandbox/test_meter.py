"""The bill against the sandbox's own meter, which counts every second and shares no code with it.

The stated bound (docs/billing.md): the bill is above the meter by no more than the time an instance was pending or
filled up its first 60 seconds, and a second, at the price of its first hour; a second of the dearest hour while it is
still there; a micro-dollar an hour for rounding. What EC2 took within the first hour lies between the bill's bounds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.aws.prices import within
from orchestrator.core.bill import Bill, make_bill
from orchestrator.core.facts import Instance, Lifecycle, OnDemandPrice, PriceRow
from orchestrator.core.units import MicroUSD
from orchestrator.sandbox.meter import Life, read_meter

HISTORIES = 10_000
KIND, ZONE = "p3dn.24xlarge", "us-east-1a"
BIRTH = datetime(2026, 11, 20, 12, tzinfo=UTC)
LISTED = {KIND: OnDemandPrice(KIND, 31_212_000, "test", BIRTH)}
# How long machines live: many end at once, some within the hour, some after several.
SPANS = (90.0, 90.0, 3700.0, 3700.0, 14_000.0)


@dataclass(frozen=True)
class History:
    """A feed of prices, and the machines that lived while they were in force."""

    changes: tuple[tuple[datetime, MicroUSD], ...]
    lives: tuple[Life, ...]
    now: datetime

    def price_at(self, moment: datetime) -> MicroUSD:
        return [price for time, price in self.changes if time <= moment][-1]

    def metered(self, life: Life) -> MicroUSD:
        return read_meter(life, self.price_at if life.spot else lambda _: LISTED[KIND].price, self.now).usd


def draw(seed: int) -> History:
    """A random history: prices jump a few times an hour; machines are released, taken, or still there."""
    chance = random.Random(seed)  # noqa: S311 - a test's own dice
    times = sorted(chance.randrange(0, 20_000) for _ in range(chance.randrange(30)))
    changes = [(BIRTH - timedelta(hours=1), chance.randrange(10_000, 32_000_000))]
    changes += [(BIRTH + timedelta(seconds=t), chance.randrange(10_000, 32_000_000)) for t in dict.fromkeys(times)]
    lives = [live(chance, index) for index in range(chance.randrange(1, 3))]
    now = max([life.ended or life.launched for life in lives]) + timedelta(seconds=chance.randrange(1, 100))
    return History(tuple(changes), tuple(lives), now)


def live(chance: random.Random, index: int) -> Life:
    launched = BIRTH + timedelta(seconds=chance.uniform(0, 4000))
    span = chance.uniform(0, chance.choice(SPANS))
    pending = chance.choice((chance.uniform(0, 5), chance.uniform(0, 200)))
    spot = chance.random() < 0.8
    life = Life(f"i-{index}", KIND, ZONE, spot, launched)
    life.ran = launched + timedelta(seconds=pending) if pending < span else None
    if chance.random() < 0.9:
        life.ended, life.taken = launched + timedelta(seconds=span), spot and chance.random() < 0.4
    elif life.ran is None:
        life.ran = launched
    return life


def described(life: Life) -> Instance:
    """The machine as EC2 describes it: times cut to whole seconds, and why it ended."""
    end = life.ended.replace(microsecond=0) if life.ended else None
    reason = ("Server.SpotInstanceTermination" if life.taken else "Client.UserInitiatedShutdown") if end else None
    launch = life.launched.replace(microsecond=0)
    bought: Lifecycle = "spot" if life.spot else "on-demand"
    return Instance(
        life.instance_id, KIND, ZONE, bought, "terminated" if end else "running", launch, end, reason, "10.0.0.9"
    )  # fmt: skip


def billed(history: History) -> Bill:
    """The bill as a run makes it, from a price history that names each change under two products."""
    rows = [PriceRow(ZONE, KIND, time, price) for time, price in history.changes]
    start = min(life.launched for life in history.lives).replace(microsecond=0)
    kept = within([*rows, *reversed(rows)], start, history.now)
    return make_bill("run", [described(life) for life in history.lives], kept, LISTED, history.now)


def bound(history: History, life: Life) -> MicroUSD:
    """How far the bill of one machine may be above the meter."""
    end = life.ended or history.now
    pending = ((life.ran or end) - life.launched).total_seconds()
    first = history.price_at(life.launched.replace(microsecond=0)) if life.spot else LISTED[KIND].price
    hours = 1 + (end - life.launched).total_seconds() // 3600
    still = 0 if life.ended else max([first, *(price for _, price in history.changes if life.spot)]) / 3600
    return int(first * (max(60.0, pending) + 1) / 3600 + still + hours) + 1


@pytest.mark.parametrize("part", range(4))
def test_never_below_the_meter_and_never_above_it_by_more_than_the_bound(part: int) -> None:
    taken_early = 0
    for seed in range(part, HISTORIES, 4):
        history = draw(seed)
        lines = sorted(billed(history).instances, key=lambda line: line.instance_id)
        for life, line in zip(history.lives, lines, strict=True):
            meter = history.metered(life)
            assert meter <= line.usd, f"history {seed}, {life}: {meter} above {line}"
            # What EC2 takes within the first hour is free for the meter and open for the bill, whose low bound is 0.
            lowest = min(line.low, line.usd - bound(history, life))
            assert lowest <= meter, f"history {seed}, {life}: {meter} too far below {line}"
            taken_early += line.low < line.usd and meter == 0
    assert taken_early > HISTORIES // 100


def test_a_reading_worked_out_by_hand() -> None:
    # Launched 12:00:00.6, running from 12:00:30.2, gone at 13:30:10.9; 3.6 $/h until 12:30, then 7.2 $/h.
    # Seconds of the clock that ended while it ran: 31st to 3600th of hour one (3570), 1810 of hour two.
    life = Life("i", KIND, ZONE, True, at(0.6), ran=at(30.2), ended=at(5410.9))
    reading = read_meter(life, lambda moment: 3_600_000 if moment < at(1800) else 7_200_000, at(9000))
    assert (reading.seconds, reading.usd) == (3570 + 1810, 3_570_000 + 3_620_000)


@pytest.mark.parametrize(
    ("ran", "ended", "taken", "seconds"),
    [
        (1.0, 4.0, False, 60),  # the minimum
        (1.0, 3599.0, True, 0),  # taken within the first hour
        (1.0, 3601.0, True, 3600),  # taken after it
        (None, 40.0, False, 0),  # never ran
        (1.0, None, False, 8999),  # still there
    ],
)
def test_what_the_meter_charges(ran: float | None, ended: float | None, taken: bool, seconds: int) -> None:
    life = Life("i", KIND, ZONE, True, at(0), at(ran) if ran else None, at(ended) if ended else None, taken)
    assert read_meter(life, lambda _: 3_600_000, at(9000)).seconds == seconds


def at(seconds: float) -> datetime:
    return BIRTH + timedelta(seconds=seconds)
