"""Recoveries that are not worth it: too little time, too little money, no hope. From facts alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.actions import Wish
from orchestrator.core.decide import decide
from orchestrator.core.facts import Node
from tests.core.gangs import FOUR, ended, four, gang_of_four, recovered, taken, verdict_of, world


@pytest.mark.parametrize(
    ("limits", "costs", "word"),
    [
        ({"max_duration": "3m"}, {}, "max_duration"),
        ({"max_cost": "60"}, {"cost_so_far": 58_500_000, "cost_per_second": 10_000}, "max_cost"),
    ],
)
def test_a_recovery_that_time_or_money_do_not_allow_ends_the_run(
    limits: dict[str, Any], costs: dict[str, Any], word: str
) -> None:
    verdict = verdict_of(decide(gang_of_four(**limits), four().state, world(60, [taken(1, 59)], **costs)))
    assert verdict.kind == "interrupted"
    assert f"too little is left of {word}" in verdict.message


def test_what_a_lost_gang_will_cost_again_counts_though_it_costs_nothing_now() -> None:
    run, gone = gang_of_four(max_cost="10"), [taken(i, 59) for i in range(4)]
    spent: dict[str, Any] = {"cost_so_far": 9_500_000, "cost_per_second": 0}
    assert "max_cost" in verdict_of(decide(run, four().state, world(60, gone, **spent))).message
    book = four()
    recovered(book, world(60, gone, cost_so_far=1), run)
    near = world(61, gone, recorded={f"i-{i}": "terminated" for i in range(4)}, **spent)
    assert decide(run, book.state, near) == (Wish("stop", "max_cost of $10.00 is near"),)


def test_a_cap_that_comes_near_during_a_recovery_ends_it() -> None:
    book, run = four(), gang_of_four(max_duration="20m")
    recovered(book, world(60, [taken(1, 59)]), run)
    seen = world(1_081, [taken(1, 59)], [ended(i, 1_081) for i in (0, 2, 3)])
    assert decide(run, book.state, seen) == (Wish("stop", "max_duration of 20m00s is near"),)
    book.add("wish", "stop", 1_081, reason="max_duration is near", cap=True)
    verdict = verdict_of(decide(run, book.state, seen))
    assert verdict.kind == "capped"
    assert "while lost nodes were being replaced" in verdict.message


def test_recoveries_that_lead_nowhere_end() -> None:
    book = four()
    for generation in range(1, 6):
        seen = world(60 + generation, [taken(9, 59)] if generation > 1 else [taken(1, 59)], [])
        seen = replace(seen, nodes={i: Node(("key",)) for i in FOUR})
        recovered(book, seen)
        book.tried(1, 0, "launched", ids=["i-9"], generation=generation + 1, count=1)
    seen = replace(world(70, [taken(9, 59), taken(1, 59)]), nodes={})
    assert "did not begin again after 5 recoveries" in verdict_of(decide(gang_of_four(), book.state, seen)).message
