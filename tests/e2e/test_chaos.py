"""A short slice of `scripts/chaos`, and its audit, which must see what it is there to see."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from scripts.chaos_audit import faults_of_answer, leaked_instances, unaccounted
from scripts.chaos_faults import FAULTS, strikes

ROOT = Path(__file__).parents[2]
FINISHED = {"event": "finished"}


def lines(*spans: tuple[int, int, int], nodes: int = 2) -> list[dict[str, Any]]:
    """Return the record of a run that did nothing wrong: (generation, first step, last step) after one another."""
    weights, found = [1], []
    for step in range(1, max(last for _, _, last in spans) + 1):
        weights.append((weights[-1] * 31 + nodes * (nodes + 1) // 2 * step) % 1_000_003)
    for generation, first, last in spans:
        found += [{"generation": generation, "step": s, "weight": weights[s]} for s in range(first, last + 1)]
    return [*found, found[-1] | FINISHED]


def test_a_run_that_goes_back_to_a_checkpoint_is_right() -> None:
    assert faults_of_answer(lines((1, 1, 9), (2, 6, 14), (3, 15, 20)), 2) == []


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (lines((1, 1, 9), (2, 11, 14)), "comes to step 11 after step 9"),
        (lines((1, 1, 9), (2, 10, 14), (1, 10, 10), (2, 15, 16)), "comes to step 10 after step 14"),
        (lines((1, 1, 4), (1, 4, 9)), "comes to step 4 after step 4"),
        (lines((1, 1, 9), nodes=3), "at step 1, not"),
        (lines((1, 1, 9))[:-1], "did not come to its end"),
        ([], "did not come to its end"),
    ],
)
def test_a_step_that_was_lost_repeated_or_done_without_a_rank_is_seen(record: list[dict[str, Any]], word: str) -> None:
    assert any(word in line for line in faults_of_answer(record, 2))


def test_what_is_alive_or_not_in_the_bill_is_seen() -> None:
    instances = [{"instance_id": "i-1", "state": "terminated"}, {"instance_id": "i-2", "state": "running"}]
    hosts = [{"instance_id": "i-1", "pids": [7]}, {"instance_id": "i-3", "pids": []}]
    assert leaked_instances({"instances": instances, "hosts": hosts}) == ["i-1", "i-2"]
    billed = {"i-1": Decimal("0.10"), "i-2": Decimal("0.20")}
    meter = {"i-1": Decimal("0.12"), "i-2": Decimal("0.19"), "i-3": Decimal("0.05")}
    assert unaccounted(billed, meter) == (Decimal("0.07"), Decimal("0.01"))


def test_a_seed_gives_the_same_faults_and_every_kind_before_any_again() -> None:
    def first(seed: int) -> list[Any]:
        stream = strikes(seed, 4)
        return [next(stream) for _ in range(2 * len(FAULTS))]

    assert first(3) == first(3) != first(4)
    assert sorted(strike.name for strike in first(3)[: len(FAULTS)]) == sorted(FAULTS)
    assert all(len(strike.ranks) == 3 for strike in first(3) if strike.name == "kill three")


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(300)
def test_a_kill_under_chaos_leaves_the_right_answer_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/chaos.py", "--seed", "5", "--only", "kill", "--strikes", "1", "--json"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    (fault,) = found["faults"]
    assert (fault["fault"], fault["resumed"], found["generations"], found["instances"]) == ("kill", 0, 2, 5)
    assert fault["trains"] > 0
    assert fault["detected"] is not None
    assert Decimal(found["billed_usd"]) > 0
