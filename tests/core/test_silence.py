"""Nodes that fall silent: who is asked, who is given up, who is given time. From facts alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.actions import Probe, Recover, Terminate
from orchestrator.core.beacon import Beacon
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts, Node
from orchestrator.core.units import iso
from tests.core.gangs import FOUR, four, gang_of_four, recovered, recovery_of, taken, verdict_of, world
from tests.core.worlds import at, beacon, instance

KEYS = ("ssh-ed25519 AAAA",)


def test_while_a_node_is_silent_the_crash_of_the_others_is_not_judged() -> None:
    crashed = [beacon(i, "exited", 75, exit_code=1, exit_time="2026-11-20T12:01:01Z") for i in (0, 2, 3)]
    quiet = world(75, said=[*crashed, beacon(1, seconds=60)])
    assert decide(gang_of_four(), four().state, quiet) == (Probe(("i-1",)),)
    gone = replace(quiet, unanswered=frozenset({"i-1"}))
    assert recovery_of(decide(gang_of_four(), four().state, gone)).kind == "lost"
    heard = world(75, said=[*crashed, beacon(1, seconds=74)])
    assert verdict_of(decide(gang_of_four(), four().state, heard)).rank == 0


def test_a_silent_node_is_asked_and_lost_only_when_it_does_not_answer() -> None:
    quiet = world(70, said=[beacon(1, seconds=61)])
    assert decide(gang_of_four(), four().state, quiet) == (Probe(("i-1",)),)
    assert decide(gang_of_four(), four().state, replace(quiet, answering=frozenset({"i-1"}))) == ()
    dead = replace(quiet, unanswered=frozenset({"i-1"}))
    assert "fell silent and does not answer SSH" in recovery_of(decide(gang_of_four(), four().state, dead)).cause
    soon = replace(world(66, said=[beacon(1, seconds=61)]), unanswered=frozenset({"i-1"}))
    assert decide(gang_of_four(), four().state, soon) == (Probe(("i-1",)),), "it may only be slow"
    answers = world(190, said=[beacon(1, seconds=61)], answering=frozenset({"i-1"}))
    assert "fell silent for 2m" in recovery_of(decide(gang_of_four(), four().state, answers)).cause


def test_a_node_under_notice_that_falls_silent_was_interrupted_whatever_ec2_shows_yet() -> None:
    quiet = world(70, said=[beacon(1, seconds=61, notice="12:01:02")], unanswered=frozenset({"i-1"}))
    book = four().add("wish", "stop", 50, reason="asked to stop")
    verdict = verdict_of(decide(gang_of_four(), book.state, quiet))
    assert (verdict.kind, "fell silent" in verdict.message) == ("interrupted", True)


def test_a_run_does_not_end_by_a_silence_of_seconds_as_ec2_may_yet_say_that_it_took_the_node() -> None:
    crashed = {"exit_code": 1, "exit_time": iso(at(61)), "started": at(60).timestamp(), "progress": {"step": 1}}
    taking = instance(2, "shutting-down", end_reason="Server.SpotInstanceTermination", end_time=at(60))

    def seen(seconds: float) -> Facts:
        said = [beacon(i, "exited", seconds, **crashed) for i in (0, 3)]
        silent = [beacon(i, seconds=60) for i in (1, 2)]
        return world(seconds, said=[*said, *silent], unanswered=frozenset({"i-1", "i-2"}))

    told = [taking if i.instance_id == "i-2" else i for i in seen(75).instances]
    stopped = four().add("wish", "stop", 50, reason="asked to stop")
    for run, book in ((gang_of_four(), stopped), (gang_of_four(max_duration="4m"), four())):
        assert Probe(("i-1", "i-2")) in decide(run, book.state, seen(75))
        assert verdict_of(decide(run, book.state, replace(seen(75), instances=tuple(told)))).kind == "interrupted"
        assert "fell silent" in verdict_of(decide(run, book.state, seen(185))).message, "it never does"
    assert verdict_of(decide(gang_of_four(), stopped.state, seen(171))).kind == "stopped"


def test_a_machine_that_answers_and_has_neither_agent_nor_training_is_lost_at_once() -> None:
    loading = [beacon(i, seconds=65, started=at(60).timestamp()) for i in (0, 2, 3)]
    quiet = world(66, said=[*loading, beacon(1, seconds=61)])
    assert decide(gang_of_four(), four().state, quiet) == (Probe(("i-1",)),)
    found = recovery_of(decide(gang_of_four(), four().state, replace(quiet, deserted=frozenset({"i-1"}))))
    assert (found.kind, found.missing) == ("lost", 1)
    assert "node 1 (i-1) fell silent and has neither agent nor training any more" in found.cause
    heard = world(66, said=loading, deserted=frozenset({"i-1"}))
    assert decide(gang_of_four(), four().state, heard) == (), "an answer from before it spoke again"


def test_most_of_a_gang_that_says_so_is_lost_at_once_too() -> None:
    quiet = world(66, said=[beacon(i, seconds=61) for i in (0, 1, 2)], deserted=frozenset({"i-0", "i-1", "i-2"}))
    assert recovery_of(decide(gang_of_four(), four().state, quiet)).missing == 4


def test_before_a_training_found_its_pace_silence_is_given_more_time() -> None:
    loading = [beacon(i, seconds=72, started=at(40).timestamp()) for i in (0, 2, 3)]
    quiet = world(72, said=[*loading, beacon(1, seconds=60)], unanswered=frozenset({"i-1"}))
    assert decide(gang_of_four(), four().state, quiet) == (Probe(("i-1",)),)
    stepping = replace(loading[0], progress={"step": 1})
    quick = world(72, said=[stepping, *loading[1:], beacon(1, seconds=60)], unanswered=frozenset({"i-1"}))
    assert recovery_of(decide(gang_of_four(), four().state, quick)).kind == "lost"


def test_when_most_of_a_gang_is_silent_at_once_nobody_is_replaced_in_a_hurry() -> None:
    quiet = world(75, said=[beacon(i, seconds=60) for i in (0, 1, 2)], unanswered=frozenset(FOUR))
    assert decide(gang_of_four(), four().state, quiet) == (Probe(("i-0", "i-1", "i-2")),)


def test_a_silent_node_that_was_replaced_is_terminated_at_once() -> None:
    book = four()
    quiet = world(75, said=[beacon(1, seconds=60)], unanswered=frozenset({"i-1"}))
    recovered(book, quiet)
    assert Terminate(("i-1",), "replaced") in decide(gang_of_four(), book.state, quiet)


def test_a_node_that_speaks_is_not_lost_because_a_listing_misses_it() -> None:
    def missed(*said: Beacon) -> Facts:
        here = world(200, said=said)
        return replace(here, instances=tuple(i for i in here.instances if i.instance_id != "i-1"))

    assert decide(gang_of_four(), four().state, missed()) == ()
    mute = missed(beacon(1, seconds=180))
    assert "EC2 no longer knows i-1" in recovery_of(decide(gang_of_four(), four().state, mute)).cause


@pytest.mark.parametrize(("late", "silent", "lost"), [(0, 9, True), (3, 9, False), (3, 12, True), (60, 13, True)])
def test_a_node_whose_agent_was_late_before_is_given_longer_but_not_for_ever(
    late: float, silent: int, *, lost: bool
) -> None:
    busy = replace(beacon(1, seconds=61), late=late)
    quiet = world(61 + silent, said=[beacon(i, seconds=60 + silent) for i in (0, 2, 3)] + [busy])
    done = decide(gang_of_four(), four().state, replace(quiet, unanswered=frozenset({"i-1"})))
    assert isinstance(done[0], Recover) is lost


def told(seconds: float, *quiet: int, **changes: Any) -> Facts:
    """Four nodes that were told to start at 60 s, of which the `quiet` have never spoken; the others wait."""
    here = world(seconds, said=[beacon(i, "preflight", seconds, started=None) for i in range(4)], **changes)
    nodes = {i: replace(n, beacon=None) if i in {f"i-{k}" for k in quiet} else n for i, n in here.nodes.items()}
    return replace(here, nodes=nodes, started=frozenset(FOUR), asked=dict.fromkeys(FOUR, at(60)))


def test_a_node_that_never_speaks_after_its_start_is_asked_and_replaced_when_it_does_not_answer() -> None:
    run, state, mute = gang_of_four(), four().state, frozenset({"i-1"})
    assert decide(run, state, told(89, 1)) == (), "agents need a moment to begin"
    assert decide(run, state, told(91, 1)) == (Probe(("i-1",)),)
    assert decide(run, state, told(149, 1, unanswered=mute)) == (Probe(("i-1",)),)
    found = recovery_of(decide(run, state, told(151, 1, unanswered=mute)))
    assert (found.missing, sorted(found.kept)) == (1, ["i-0", "i-2", "i-3"])
    assert found.cause == "node 1 (i-1) has not been heard since it was told to start, nor does it answer SSH"
    assert found.unfit == {"i-1": "it has not been heard since it was told to start, nor does it answer SSH"}
    busy = told(151, 1, deserted=mute)
    busy = replace(busy, nodes=dict(busy.nodes) | {"i-2": Node(KEYS, None, beacon(2, seconds=151))})
    found = recovery_of(decide(run, state, busy))
    assert (found.missing, found.unfit) == (1, {}), "one that did not wait may have left something in S3"
    assert decide(run, state, told(359, 1, answering=mute)) == (), "something lives there"
    assert recovery_of(decide(run, state, told(361, 1, answering=mute))).missing == 1
    heard_since = replace(told(151, 1, unanswered=mute), watched_since=at(140))
    assert decide(run, state, heard_since) == (), "who did not listen cannot say that nobody spoke"


def test_when_most_of_a_gang_never_speaks_nobody_is_replaced_for_it() -> None:
    mute = frozenset(FOUR)
    asked = (Probe(("i-0", "i-1", "i-2")),)
    assert decide(gang_of_four(), four().state, told(370, 0, 1, 2, unanswered=mute)) == asked


def test_a_survivor_of_which_only_the_generation_before_speaks_is_replaced_too() -> None:
    book = four()
    recovered(book, world(100, [taken(3, 99)]))
    book.tried(1, 0, "launched", ids=("i-4",), generation=2, seconds=101)

    def seen(seconds: float) -> Facts:
        said = [replace(beacon(i, seconds=seconds), generation=1 if i == 1 else 2) for i in (0, 1, 2)]
        said.append(replace(beacon(4, seconds=seconds), rank=3, generation=2))
        ended = replace(said[1], stage="exited", exit_code=75, synced=True)
        here = world(seconds, [taken(3, 99)], [said[0], ended, said[2], said[3]])
        return replace(
            here, instances=(*here.instances, instance(4)), asked={"i-1": at(110)}, started=frozenset({"i-1"})
        )

    assert decide(gang_of_four(), book.state, seen(405)) == (Probe(("i-1",)),)
    assert (
        "has not been heard since it was told to start"
        in recovery_of(decide(gang_of_four(), book.state, seen(411))).cause
    )


def booting(seconds: float, *late: int, asked: int = 60) -> Facts:
    """Four nodes of which the `late` have not booted; the others were told to start at `asked` and speak."""
    here = told(seconds, *late)
    names = {f"i-{i}" for i in late}
    nodes = {i: replace(node, host_keys=()) if i in names else node for i, node in here.nodes.items()}
    ready = frozenset(FOUR) - names
    return replace(here, nodes=nodes, started=ready, asked=dict.fromkeys(sorted(ready), at(asked)))


def test_a_machine_that_boots_long_after_most_of_its_launch_is_replaced() -> None:
    run, book = gang_of_four(), four()
    assert decide(run, book.state, booting(359, 1)) == ()
    found = recovery_of(decide(run, book.state, booting(361, 1)))
    assert (found.missing, sorted(found.kept)) == (1, ["i-0", "i-2", "i-3"])
    assert found.cause == "node 1 (i-1) was not ready 5m00s after most of those launched with it"
    assert found.unfit == {"i-1": "it was not ready 5m00s after most of those launched with it"}
    assert decide(run, book.state, booting(890, 1, 2)) == (), "half is not most"
    assert decide(run, book.state, replace(booting(361, 1), watched_since=at(300))) == ()


def test_a_machine_that_was_launched_later_than_the_others_has_the_time_that_its_type_takes() -> None:
    book = four()
    recovered(book, world(100, [taken(1, 99)]))
    book.tried(1, 0, "launched", ids=("i-4",), generation=2, seconds=101)

    def seen(seconds: float) -> Facts:
        said = [replace(beacon(i, seconds=seconds), generation=2) for i in (0, 2, 3)]
        here = world(seconds, [taken(1, 99)], said)
        nodes = dict(here.nodes) | {"i-4": Node()}
        asked = dict.fromkeys(("i-0", "i-2", "i-3"), at(102))
        return replace(here, instances=(*here.instances, instance(4)), nodes=nodes, asked=asked)

    assert decide(gang_of_four(), book.state, seen(1000)) == ()
    assert "was not ready within 15m" in recovery_of(decide(gang_of_four(), book.state, seen(1002))).cause
