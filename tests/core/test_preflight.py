"""Which nodes the preflight finds unfit, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.actions import Recover, Start
from orchestrator.core.beacon import Beacon, Mark
from orchestrator.core.decide import decide
from orchestrator.core.preflight import (
    Check,
    Findings,
    Preflight,
    clock_checks,
    expected_rate,
    gang_notes,
    judge,
    odd_ones,
    pairs,
    read_preflight,
)
from tests.core.worlds import Book, at, beacon, facts, instance, spec

GB = 1e9
BAD = Check("gpus", "fail", "7 of 8 GPUs")


def gang(*rates: float) -> dict[int, Findings]:
    return {rank: Findings(links={99: rate, 98: rate / 3}) for rank, rate in enumerate(rates)}


@pytest.mark.parametrize("size", [2, 3, 4, 5, 16, 17])
def test_in_every_round_nobody_has_two_partners_and_partners_change(size: int) -> None:
    ranks = range(size)
    met = set()
    for turn in range(size - 1 + size % 2):
        who = pairs(ranks, turn)
        assert all(who[other] == rank != other for rank, other in who.items())
        assert len(who) == size - size % 2
        met |= {frozenset(item) for item in who.items()}
    assert len(met) == size * (size - 1) // 2, "everybody met everybody once"
    assert pairs([7], 0) == {}


def test_the_odd_node_out_is_unfit_and_its_partners_are_not() -> None:
    found = judge(gang(1.0 * GB, 1.1 * GB, 0.2 * GB, 0.9 * GB), 0)
    assert found == {2: "its best link gives 200 MB/s, those of the others 1.00 GB/s"}


def test_a_node_half_as_fast_as_the_others_stays() -> None:
    assert judge(gang(1.0 * GB, 1.1 * GB, 0.5 * GB, 0.9 * GB), 0) == {}


def test_a_node_that_gives_what_its_type_should_is_never_odd() -> None:
    assert odd_ones(gang(9 * GB, 9 * GB, 0.7 * GB, 9 * GB), 1.25 * GB) == {}
    assert list(odd_ones(gang(9 * GB, 9 * GB, 0.6 * GB, 9 * GB), 1.25 * GB)) == [2]


def test_a_gang_that_is_slow_as_a_whole_is_told_so_and_trains() -> None:
    slow = gang(0.1 * GB, 0.1 * GB, 0.9 * GB, 0.9 * GB)
    assert judge(slow, 1.25 * GB) == {}
    assert gang_notes(gang(0.1 * GB, 0.1 * GB), 0.05 * GB, 1.25 * GB) == (
        "links give 100 MB/s, this type should give 1.25 GB/s",
        "all-reduce over all nodes gives 50 MB/s, of 1.25 GB/s a link should give",
    )
    assert gang_notes(gang(0.1 * GB), 0.1, 0) == ()
    assert expected_rate(400) == expected_rate(10) == 1.25 * GB


def test_of_two_nodes_nobody_can_say_which_is_slow() -> None:
    assert judge(gang(1.0 * GB, 0.001 * GB), 0) == {}


def test_a_node_that_falls_silent_is_unfit_unless_most_do() -> None:
    found = gang(1 * GB, 1 * GB, 1 * GB)
    assert judge(found | {1: Findings(answered=False)}, 0) == {1: "it stopped answering"}
    assert judge({rank: Findings(answered=rank == 0) for rank in range(3)}, 0) == {}


def test_a_fault_of_its_own_makes_a_node_unfit_whatever_its_links_give() -> None:
    found = gang(1 * GB, 1 * GB) | {1: Findings((BAD, Check("disk", "warn", "2 GiB")), {0: GB})}
    assert judge(found, 0) == {1: "gpus: 7 of 8 GPUs"}


def test_a_clock_is_held_against_those_of_the_gang() -> None:
    found = clock_checks({0: 0.0, 1: 100.1, 2: 100.0, 3: 100.3, 4: 5000.0})
    assert [found[rank].state for rank in range(5)] == ["warn", "ok", "ok", "ok", "fail"]
    assert found[0].detail == "100 s off those of the other nodes"


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
    assert not found.recovery.trained


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
