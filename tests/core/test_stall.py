"""When a training that says nothing any more is taken for one that hangs. From facts alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.actions import End, Recover
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts
from tests.core.gangs import FOUR, four, gang_of_four, recovered, recovery_of, world
from tests.core.worlds import at, beacon


def quiet(seconds: float, pause: float | None = 2.0, *, generation: int = 1, **of_rank_2: Any) -> Facts:
    """Four nodes that train and have written nothing for `seconds`, but for what is said of rank 2."""
    said = [beacon(i, seconds=1000, quiet=seconds, generation=generation) for i in range(4)]
    said[0] = replace(said[0], pause=pause, progress={"step": 40})
    said[2] = replace(said[2], **{name.removeprefix("of_"): value for name, value in of_rank_2.items()})
    return world(1000, said=said)


@pytest.mark.parametrize(("pause", "limit"), [(0.2, 300), (2.0, 300), (90.0, 450)])
def test_a_training_of_which_nothing_comes_for_long_hangs_also_without_a_stall_timeout(
    pause: float, limit: float
) -> None:
    assert decide(gang_of_four(), four().state, quiet(limit, pause)) == ()
    found = recovery_of(decide(gang_of_four(), four().state, quiet(limit + 1, pause)))
    assert (found.kind, found.missing, sorted(found.kept)) == ("failed", 0, list(FOUR))
    assert "one hangs" in found.cause


def test_what_may_have_been_a_long_evaluation_is_given_twice_the_time_after_each_failure() -> None:
    book = four()
    recovered(book, quiet(301))
    book.add("intent", "start", 1001, generation=2, restore_step=39)
    assert decide(gang_of_four(), book.state, quiet(600, generation=2)) == ()
    recovered(book, quiet(601, generation=2))


@pytest.mark.parametrize(
    "of_rank_2",
    [
        {"quiet": 4.0},
        {"stage": "exited", "exit_code": 0, "synced": True},
        {"stage": "setup"},
        {"of_generation": 0},
    ],
)
def test_whoever_writes_anything_is_done_or_has_not_begun_may_be_waited_for(of_rank_2: dict[str, Any]) -> None:
    actions = decide(gang_of_four(), four().state, quiet(10**4, **of_rank_2))
    assert not [action for action in actions if isinstance(action, Recover | End)]


def test_a_training_that_has_not_found_its_pace_or_says_how_long_it_may_pause_is_not_judged_by_it() -> None:
    assert decide(gang_of_four(), four().state, quiet(10**4, None)) == ()
    said = quiet(10**4)
    first = said.nodes["i-0"].beacon
    assert first is not None
    stepped = replace(first, progress={"step": 40, "time": at(990).timestamp()})
    nodes = {**said.nodes, "i-0": replace(said.nodes["i-0"], beacon=stepped)}
    assert decide(gang_of_four(stall_timeout="90s"), four().state, replace(said, nodes=nodes)) == ()


def test_steps_that_nobody_heard_of_are_not_steps_that_did_not_come() -> None:
    heard = beacon(0, seconds=65, progress={"step": 40, "time": at(60).timestamp()})
    actions = decide(gang_of_four(stall_timeout="90s"), four().state, world(180, said=[heard]))
    assert [type(action).__name__ for action in actions] == ["Probe"]


def test_while_a_node_is_silent_its_word_of_then_does_not_count() -> None:
    seen = quiet(10**4, time=beacon(2, seconds=990).time)
    assert [type(action).__name__ for action in decide(gang_of_four(), four().state, seen)] == ["Probe"]
