"""Which links the preflight looks at, and which nodes it finds unfit by them: also of random gangs in random noise."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fitness import (
    MORE_ROUNDS,
    ROUNDS,
    SURE_ROUNDS,
    clock_checks,
    expected_rate,
    gang_notes,
    judge,
    next_pairs,
    odd_ones,
    pairs,
)
from orchestrator.core.preflight import Check, Findings

GB = 1e9
# What the line of a slow node gives of the others': the sandbox's slow host gives less.
LINE = 1 / 50
BAD = Check("gpus", "fail", "7 of 8 GPUs")
Looked = tuple[dict[int, Findings], int]


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


def looked_at(size: int, noise: Callable[[], float], slow: Collection[int] = (), line: float = LINE) -> Looked:
    """Return a gang that is looked at as the node of rank 0 does, `noise` times slower, and how many rounds it took."""
    found = dict.fromkeys(range(size), Findings())
    turn = 0
    while who := next_pairs(found, turn, 0):
        turn += 1
        for rank, other in who.items():
            if rank < other:
                rate = GB / noise() * (line if slow and not {rank, other}.isdisjoint(slow) else 1)
                found[rank], found[other] = found[rank].looked_at(other, rate), found[other].looked_at(rank, rate)
    return found, turn


def noises(seed: int) -> Iterator[Callable[[], float]]:
    """Ways in which a loaded machine makes a look at a link up to ten times slower."""
    draw = random.Random(seed)  # noqa: S311
    yield lambda: 10 ** draw.random()
    yield lambda: draw.uniform(1, 10)
    yield lambda: draw.choice((1.0, 10.0))


# Of a gang of three there is one pair without the slow node: bad luck can be that long.
SIZES = st.integers(4, 18)
SEEDS = st.integers(0, 1 << 30)


@given(SIZES, SEEDS)
def test_a_slow_line_is_found_in_whatever_noise(size: int, seed: int) -> None:
    slow = seed % size
    for noise in noises(seed):
        found, _ = looked_at(size, noise, {slow})
        assert list(judge(found, 0)) == [slow]


@given(SIZES, SEEDS, st.sampled_from([1 / 4, 1 / 5, 1 / 7, 1 / 10]))
def test_a_line_of_a_quarter_is_found_on_a_quiet_machine_whatever_a_look_now_and_then_says(
    size: int, seed: int, line: float
) -> None:
    draw = random.Random(seed)  # noqa: S311
    found, _ = looked_at(size, lambda: draw.uniform(1, 1.15) * (4 if draw.random() < 0.05 else 1), {seed % size}, line)
    assert list(judge(found, 0)) == [seed % size]


@given(SIZES, SEEDS)
def test_noise_throws_nobody_out(size: int, seed: int) -> None:
    for noise in noises(seed):
        found, _ = looked_at(size, noise)
        assert judge(found, 0) == {}


@given(SIZES, SEEDS)
def test_where_two_of_a_gang_are_slow_both_are_found_and_nobody_with_them(size: int, seed: int) -> None:
    slow = {seed % size, seed // size % size}
    for noise in noises(seed):
        found, _ = looked_at(size, noise, slow)
        assert list(judge(found, 0)) == ([] if 3 * len(slow) > size else sorted(slow))


@pytest.mark.parametrize("size", range(2, 18))
def test_a_gang_without_fault_or_noise_is_looked_at_three_times_and_not_longer(size: int) -> None:
    found, turns = looked_at(size, lambda: 1.0)
    assert turns == min(ROUNDS, size - 1 + size % 2)
    assert judge(found, 0) == {}


def test_the_second_look_is_at_the_slow_node_and_few_others_whose_turn_it_is() -> None:
    found, turns = looked_at(16, lambda: 1.0, {5})
    assert turns == ROUNDS + SURE_ROUNDS
    partners = set()
    for turn in range(ROUNDS, turns):
        who = next_pairs(found, turn, 0)
        assert len(who) == 4, "the slow one with a good one, beside one good pair"
        partners.add(who[5])
    assert len(partners) == SURE_ROUNDS
    assert next_pairs(found, turns, 0) == {}
    # What gives what its type should is slow for nobody.
    assert next_pairs(found, ROUNDS, LINE * GB) == {}


def test_a_node_that_is_slow_at_every_look_is_odd_and_one_whose_looks_differ_is_not() -> None:
    others = {rank: Findings(links={9: GB}, looks=(GB,)) for rank in range(3)}

    def odd(*looks: float) -> list[int]:
        return list(odd_ones(others | {3: Findings(links={0: max(looks) * GB}, looks=tuple(x * GB for x in looks))}, 0))

    assert odd(0.3, 0.28, 0.29) == [3]
    assert odd(0.3, 0.28, 0.01) == [3], "one look went wrong"
    assert odd(0.3, 0.1, 0.1) == []
    assert odd(0.05, 0.001, 0.001) == [3], "glaringly"
    assert list(odd_ones(others | {3: Findings(links={0: 0.0})}, 0)) == [3], "no link of it works"


def test_a_broken_node_is_not_looked_at_for_as_long_as_another_is_in_doubt() -> None:
    """Each look at a link that does not work waits for its time to run out, with the whole gang waiting."""
    found = dict.fromkeys(range(8), Findings())
    looks, turn = 0, 0
    while who := next_pairs(found, turn, 0):
        turn, looks = turn + 1, looks + (3 in who)
        for rank, other in who.items():
            rate = 0.0 if 3 in (rank, other) else 0.3 * GB if 5 in (rank, other) else GB
            found[rank] = found[rank].looked_at(other, rate)
    assert turn == ROUNDS + MORE_ROUNDS and looks == ROUNDS + SURE_ROUNDS
    assert list(judge(found, 0)) == [3, 5]


def test_in_a_small_gang_the_second_look_takes_turns_with_the_good_nodes() -> None:
    found, turns = looked_at(3, lambda: 1.0, {0})
    assert [next_pairs(found, turn, 0) for turn in range(ROUNDS, turns)] == [
        {1: 2, 2: 1},
        {0: 1, 1: 0},
        {1: 2, 2: 1},
        {0: 2, 2: 0},
    ]


def test_the_best_look_at_each_link_and_all_that_worked_are_kept() -> None:
    found = Findings().looked_at(1, 3.0).looked_at(1, 0.0).looked_at(2, 2.0).looked_at(1, 4.0).looked_at(2, 1.0)
    assert (found.links, found.best, found.looks) == ({1: 4.0, 2: 2.0}, 4.0, (3.0, 2.0, 4.0, 1.0))
    assert Findings().looked_at(1, 0.0) == Findings(links={1: 0.0})


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
