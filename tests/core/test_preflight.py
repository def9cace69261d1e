"""Which nodes the preflight finds unfit, and what becomes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from orchestrator.core.actions import Recover, Start
from orchestrator.core.beacon import Beacon, Mark
from orchestrator.core.decide import decide
from orchestrator.core.ledger import Recovery
from orchestrator.core.preflight import Check, Preflight, read_preflight
from tests.core.worlds import Book, at, beacon, facts, instance, spec

BAD = Check("gpus", "fail", "7 of 8 GPUs")


def test_what_a_node_found_survives_the_way_through_json() -> None:
    found = Preflight((BAD,), {1: 5.0}, 1.5, None, 2.0, {3: "slow"}, ("note",), (2,), 0.25)
    assert read_preflight(found.to_json()) == found
    assert read_preflight(None) is read_preflight({"checks": 1}) is read_preflight({}) is None


def checking(index: int, began: float, heard: float, **found: Any) -> Beacon:
    made = beacon(index, "preflight", heard, started=None, preflight=Preflight(**found).to_json())
    return replace(made, times=(Mark(1, "preflight", at(began).timestamp()),))


def decided(said: list[Beacon], seconds: float, size: int = 4) -> Any:
    book = Book().tried(1, 0, "launched", ids=[f"i-{index}" for index in range(size)])
    return decide(spec(size), book.state, facts(seconds, [instance(index) for index in range(size)], said))


def test_an_unfit_node_is_replaced_before_the_training_begins_and_the_others_stay() -> None:
    said = [checking(index, 20, 30, unfit={2: "slow"}, seconds=1.0) for index in (0, 1, 3)]
    (found,) = decided(said, 31)
    assert isinstance(found, Recover)
    assert (found.recovery.kept, found.recovery.missing) == ({"i-0": 0, "i-1": 1, "i-3": 3}, 1)
    assert "node 2 (i-2) is unfit to train: slow" in found.recovery.cause
    assert found.recovery.unfit == {"i-2": "slow"}
    assert Recovery.from_json(json.loads(json.dumps(found.recovery.to_json())), at(31)) == found.recovery
    assert not found.recovery.trained
    book = Book().tried(1, 0, "launched", ids=[f"i-{index}" for index in range(4)])
    assert not book.add("intent", "recover", 31, **found.recovery.to_json()).state.trained
    lost = found.recovery.to_json() | {"generation": 2, "unfit": {}}
    assert book.add("intent", "recover", 60, **lost).state.trained, "a node was lost, and nobody says before what"


def test_a_node_that_does_not_reach_rank_0_although_both_wait_is_replaced_and_one_that_boots_is_waited_for() -> None:
    said = [checking(0, 20, 129, missing=(1, 3)), checking(1, 25, 129), checking(2, 21, 129)]
    (start,) = decided(said, 105)
    assert isinstance(start, Start)
    assert start.instance_ids == ("i-3",)
    (found,) = decided(said, 130)
    assert sorted(found.recovery.kept) == ["i-0", "i-2", "i-3"]
    assert "it does not reach node 0" in found.recovery.cause


def test_a_rank_0_that_nobody_reaches_is_the_one_that_is_replaced() -> None:
    said = [checking(0, 20, 129, missing=(1, 2, 3)), *(checking(index, 25, 129) for index in (1, 2, 3))]
    (found,) = decided(said, 130)
    assert sorted(found.recovery.kept.values()) == [1, 2, 3]
    assert "3 of 3 nodes do not reach it" in found.recovery.cause


def test_a_gang_that_is_unfit_as_a_whole_ends_with_the_reason() -> None:
    said = [checking(index, 20, 30, unfit={0: "gpus: 0 of 8 GPUs", 1: "gpus: 0 of 8 GPUs"}) for index in (0, 1)]
    (end,) = decided(said, 31, size=2)
    assert end.verdict.kind == "failed"
    assert "gpus: 0 of 8 GPUs" in end.verdict.message
