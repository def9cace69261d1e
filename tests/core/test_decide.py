"""What the scheduler does next, from facts alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.actions import (
    Close,
    Create,
    Delete,
    End,
    Kill,
    Launch,
    Probe,
    Record,
    Recover,
    Start,
    Stop,
    Terminate,
    Wish,
)
from orchestrator.core.beacon import Beacon
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts, Node
from orchestrator.core.ledger import Verdict, replay
from orchestrator.core.phase import find_phase
from tests.core.worlds import RESOURCES, Book, at, beacon, facts, instance, offer, spec

PAIR = ("i-0", "i-1")


def launched() -> Book:
    return Book().tried(1, 0, "launched", ids=PAIR)


def running(**changes: Any) -> Facts:
    return facts(60, [instance(0), instance(1)], [beacon(0, seconds=60), beacon(1, seconds=60)], **changes)


def verdict_of(book: Book, seen: Facts, **experiment: Any) -> Verdict:
    actions = decide(spec(**experiment), book.state, seen)
    ends = [action for action in actions if isinstance(action, End)]
    assert len(ends) == 1, actions
    return ends[0].verdict


def test_what_a_gang_needs_is_made_before_it_is_launched() -> None:
    made = decide(spec(), Book().state, facts(resources=()))
    assert made == (Create("key-pair"), Create("security-group"), Create("placement-group"))
    assert decide(spec(), Book().state, facts(resources=RESOURCES[:2])) == (Create("placement-group"),)


def test_one_node_needs_no_placement_group() -> None:
    one = spec(1, [offer(placement_group=False)])
    assert decide(one, Book().state, facts(resources=RESOURCES[:2])) == (Launch(1, 1, 0),)


def test_offers_are_tried_in_order_after_each_refusal() -> None:
    book = Book()
    assert decide(spec(), book.state, facts()) == (Launch(1, 1, 0),)
    book.tried(1, 0, "no-capacity", "InsufficientInstanceCapacity")
    assert decide(spec(), book.state, facts()) == (Launch(1, 2, 1),)
    book.tried(2, 1, "not-offered", "Unsupported")
    assert decide(spec(), book.state, facts()) == (Launch(1, 3, 2),)


def test_a_launch_without_outcome_is_repeated_as_it_was() -> None:
    book = Book().tried(1, 0, None)
    assert decide(spec(), book.state, facts()) == (Launch(1, 1, 0, {"ClientToken": "1"}),)
    book.add("wish", "stop", reason="x")
    assert decide(spec(), book.state, facts()) == (Launch(1, 1, 0, {"ClientToken": "1"}),), "or instances could leak"


def test_no_capacity_anywhere_ends_the_run_naming_every_zone() -> None:
    book = Book()
    for index in range(3):
        book.tried(index + 1, index, "no-capacity", "InsufficientInstanceCapacity")
    verdict = verdict_of(book, facts())
    assert verdict.kind == "no-capacity"
    assert all(zone in verdict.message for zone in ("us-east-1a", "us-east-1b", "us-east-1c"))


def test_a_missing_quota_rules_out_every_offer_that_counts_against_it() -> None:
    offers = [
        offer("us-east-1a"),
        offer("us-east-1b"),
        offer("us-east-1a", lifecycle="on-demand", quota_code="L-417A185B"),
    ]
    book = Book().tried(1, 0, "quota", "MaxSpotInstanceCountExceeded")
    assert decide(spec(2, offers), book.state, facts()) == (Launch(1, 2, 2),)
    verdict = verdict_of(Book().tried(1, 0, "quota", "MaxSpotInstanceCountExceeded"), facts())
    assert "L-7212CCBC" in verdict.hint


@pytest.mark.parametrize("status", ["denied", "bad-request", "unknown"])
def test_a_refusal_that_no_other_zone_would_mend_ends_the_run_at_once(status: str) -> None:
    verdict = verdict_of(Book().tried(1, 0, status, "InvalidAMIID.NotFound"), facts())
    assert (verdict.kind, verdict.code) == ("failed", "InvalidAMIID.NotFound")
    assert verdict.hint.endswith("then launch again; nothing was started")
    again = Book().add("intent", "end", verdict=verdict.to_json()).add("outcome", "close", generation=1)
    again.add("wish", "resume").tried(1, 0, status, "InvalidAMIID.NotFound", generation=2)
    assert verdict_of(again, facts()).hint.endswith("then `orch resume`; nothing was started")


def test_who_stops_a_resumed_run_before_it_has_machines_is_not_told_that_it_never_ran() -> None:
    stop = {"reason": "asked to stop"}
    assert verdict_of(Book().add("wish", "stop", **stop), facts()).message == "stopped before anything was launched"
    ended = Book().add("intent", "end", verdict=Verdict("stopped", "m").to_json()).add("outcome", "close", generation=1)
    resumed = verdict_of(ended.add("wish", "resume").add("wish", "stop", **stop), facts())
    assert (resumed.kind, resumed.message) == ("stopped", "stopped before anything was launched again")
    assert "orch resume" in resumed.hint


def test_nodes_are_started_as_they_get_ready_and_once() -> None:
    seen = facts(5, [instance(0), instance(1)])
    ready = replace(seen, nodes={"i-1": Node(("ssh-ed25519 AAAA",)), "i-0": Node()})
    assert decide(spec(), launched().state, ready) == (Start(("i-1",), {"i-0": 0, "i-1": 1}, 1),)
    assert decide(spec(), launched().state, replace(ready, started=frozenset({"i-1"}))) == ()
    assert decide(spec(), launched().state, running()) == ()


def test_nothing_is_started_before_every_address_is_known() -> None:
    half = facts(5, [instance(0), instance(1, private_ip=None)])
    assert decide(spec(), launched().state, half) == ()


def test_a_new_instance_that_ec2_does_not_show_yet_is_not_dead() -> None:
    assert decide(spec(), launched().state, facts(30, [instance(0)])) == ()
    (missed,) = decide(spec(), launched().state, facts(200, [instance(0)]))
    assert isinstance(missed, Recover)
    assert missed.recovery.cause == "EC2 no longer knows i-1"


def test_a_launch_that_a_successor_sent_late_counts_from_then() -> None:
    book = Book().add("intent", "launch", 0, generation=1, attempt=1, offer=0, request={})
    book.add("outcome", "launch", 1500, generation=1, attempt=1, status="launched", instance_ids=list(PAIR))
    assert decide(spec(), book.state, facts(1530, [instance(0)])) == (), "neither unknown, nor not ready in time"


def test_all_nodes_done_is_finished() -> None:
    done = [beacon(i, "exited", 60, exit_code=0, exit_stage="running") for i in range(2)]
    assert verdict_of(launched(), facts(60, [instance(0), instance(1)], done)).kind == "finished"
    half = [done[0], beacon(1, "running", 60)]
    assert decide(spec(), launched().state, facts(60, [instance(0), instance(1)], half)) == ()


def test_the_first_rank_that_failed_is_named_with_its_last_words() -> None:
    failed = [
        beacon(
            0, "exited", 60, exit_code=1, exit_stage="running", exit_time="2026-11-20T12:00:59Z", tail=("peer closed",)
        ),
        beacon(
            1, "exited", 60, exit_code=3, exit_stage="running", exit_time="2026-11-20T12:00:55Z", tail=("KeyError: x",)
        ),
    ]
    verdict = verdict_of(launched(), facts(61, [instance(0), instance(1)], failed))
    assert (verdict.kind, verdict.rank, verdict.details) == ("failed", 1, ("KeyError: x",))
    assert f"`orch logs {spec().run_id} --node 1`" in verdict.hint


@pytest.mark.parametrize(
    ("stage", "what"),
    [
        ("running", "`run`"),
        ("setup", "`setup`"),
        ("staging", "the staging of its data"),
        ("preflight", "the preflight"),
        ("starting", "the start of the training"),
        (None, "`run`"),
    ],
)
def test_a_failure_names_what_it_was_that_exited(stage: str | None, what: str) -> None:
    ends = [beacon(i, "exited", 60, exit_code=i, exit_stage=stage) for i in range(2)]
    verdict = verdict_of(launched(), facts(70, [instance(0), instance(1)], ends))
    assert verdict.message == f"node 1 (i-1): {what} exited with code 1"


@pytest.mark.parametrize(("recipe", "what"), [("d1", "step library"), ("", "`run`")])
def test_of_a_recipe_the_step_is_named_that_exited(recipe: str, what: str) -> None:
    said = {"step": 2, "steps": 3, "name": "library"}
    ends = [beacon(0, "exited", 60, exit_code=3, exit_stage="running", progress=said)]
    book = Book().tried(1, 0, "launched", ids=["i-0"])
    (end,) = decide(replace(spec(1, retries=0), recipe=recipe), book.state, facts(70, [instance(0)], ends))
    assert isinstance(end, End)
    assert end.verdict.message == f"node 0 (i-0): {what} exited with code 3"


def test_a_staging_that_failed_says_of_which_object() -> None:
    why = "staging failed: sets/photos/0003.tar is damaged: its sha256 is 1f0c"
    said = (f"orch: {why}", "orch: hint: upload it again", "orch: staging ended with code 1")
    ends = [beacon(i, "exited", 60, exit_code=i, exit_stage="staging", tail=said) for i in range(2)]
    verdict = verdict_of(launched(), facts(70, [instance(0), instance(1)], ends))
    assert verdict.message.endswith("exited with code 1: sets/photos/0003.tar is damaged: its sha256 is 1f0c")
    assert verdict.details == said


def test_a_rank_that_only_lost_its_peer_is_not_blamed_though_its_process_was_gone_first() -> None:
    def gone(rank: int, when: str, said: str) -> Beacon:
        return beacon(
            rank, "exited", 70, exit_code=1, exit_stage="running", exit_time=f"2026-11-20T12:{when}Z", tail=(said,)
        )

    victim = gone(0, "00:59.100000", "RuntimeError: [pair.cc:553] Connection closed by peer [10.0.0.8]:4711")
    running = [instance(0), instance(1)]
    culprit = gone(1, "00:59.900000", "KeyError: x")
    assert verdict_of(launched(), facts(71, running, [victim, culprit])).rank == 1
    much_later = gone(1, "01:05.000000", "KeyError: x")
    assert verdict_of(launched(), facts(71, running, [victim, much_later])).rank == 0, (
        "no cause of what was long before"
    )


def test_the_others_get_a_moment_to_say_what_happened() -> None:
    half = [beacon(0, "exited", 60, exit_code=1, exit_time="2026-11-20T12:01:00Z"), beacon(1, "running", 65)]
    assert decide(spec(), launched().state, facts(61, [instance(0), instance(1)], half)) == ()
    half[1] = beacon(1, "running", 69)
    assert verdict_of(launched(), facts(70, [instance(0), instance(1)], half)).rank == 0


def test_a_training_is_not_blamed_while_the_node_that_tore_it_down_may_be_gone() -> None:
    torn = [beacon(0, "exited", 62, exit_code=1, exit_time="2026-11-20T12:01:02Z"), beacon(1, "running", 58)]
    torn[0] = replace(torn[0], time="2026-11-20T12:01:29Z")
    assert decide(spec(), launched().state, facts(90, [instance(0), instance(1)], torn)) == (Probe(("i-1",)),)
    taken = instance(1, "shutting-down", end_time=at(60), end_reason="Server.SpotInstanceTermination")
    *_, answer = decide(spec(), launched().state, facts(91, [instance(0), taken], torn))
    assert isinstance(answer, Recover)
    assert answer.recovery.kind == "interrupted"


def test_a_node_with_another_host_key_ends_the_run_loudly_and_is_not_spoken_to() -> None:
    seen = facts(60, [instance(0), instance(1)], [beacon(0, seconds=60)], mistrusted=frozenset({"i-1"}))
    verdict = verdict_of(launched(), seen)
    assert (verdict.kind, verdict.rank, verdict.code) == ("failed", 1, "HostKeyMismatch")
    ended = launched().add("intent", "end", 60, verdict=verdict.to_json())
    assert decide(spec(), ended.state, seen) == (Kill(("i-0",), 1),)


def test_an_interruption_by_ec2_is_told_apart_from_a_failure() -> None:
    taken = instance(1, "shutting-down", end_time=at(50), end_reason="Server.SpotInstanceTermination")
    seen = facts(60, [instance(0), taken], [beacon(0, seconds=60), beacon(1, seconds=50)])
    *_, answer = decide(spec(), launched().state, seen)
    assert isinstance(answer, Recover)
    assert answer.recovery.kind == "interrupted"
    assert verdict_of(launched(), seen, max_duration="3m").kind == "interrupted", "no time is left to go on"
    by_hand = replace(taken, end_reason="Client.UserInitiatedShutdown")
    assert verdict_of(launched(), facts(60, [instance(0), by_hand])).kind == "failed"


def test_stop_asks_rank_zero_once_then_waits_for_the_checkpoint() -> None:
    book = launched().add("wish", "stop", 60, reason="stopped by the user")
    assert decide(spec(), book.state, running()) == (Stop("i-0", 1),)
    assert decide(spec(), book.state, running(stops_sent=frozenset({1}))) == ()
    saved = [
        beacon(i, "exited", 65, exit_code=1, stopped_step=40 if i == 0 else None, checkpoint_step=40, synced=True)
        for i in range(2)
    ]
    verdict = verdict_of(book, facts(66, [instance(0), instance(1)], saved))
    assert (verdict.kind, verdict.message) == ("stopped", "stopped by the user: saved at step 40")


def test_stop_waits_for_the_upload_but_not_for_ever() -> None:
    book = launched().add("wish", "stop", 60, reason="r")
    exited = [beacon(i, "exited", 65, exit_code=1, stopped_step=40, synced=False) for i in range(2)]
    assert decide(spec(), book.state, facts(66, [instance(0), instance(1)], exited)) == ()
    late = [replace(b, time="2026-11-20T12:09:00Z") for b in exited]
    assert "no checkpoint" in verdict_of(book, facts(560, [instance(0), instance(1)], late)).message


def test_a_script_that_simply_exits_on_the_stop_file_was_stopped_not_failed() -> None:
    book = launched().add("wish", "stop", 60, reason="stopped by the user")
    exited = [beacon(i, "exited", 65, exit_code=3, synced=True) for i in range(2)]
    verdict = verdict_of(book, facts(66, [instance(0), instance(1)], exited))
    assert (verdict.kind, verdict.message) == ("stopped", "stopped by the user: no checkpoint was saved")


def test_what_nobody_could_hear_is_not_silence() -> None:
    quiet = facts(400, [instance(0), instance(1)], [beacon(0, seconds=400), beacon(1, seconds=200)])
    *_, answer = decide(spec(), launched().state, quiet)
    assert isinstance(answer, Recover)
    assert "fell silent" in answer.recovery.cause
    assert decide(spec(), launched().state, replace(quiet, watched_since=at(397))) == ()
    fresh = facts(1500, [instance(0), instance(1)])
    assert "never reported" in verdict_of(launched(), fresh).message
    successor = replace(fresh, watched_since=at(1499))
    assert decide(spec(), launched().state, successor) == (Start(PAIR, {"i-0": 0, "i-1": 1}, 1),)


def test_a_stop_that_nobody_passed_on_is_passed_on_by_whoever_comes() -> None:
    beacons = [beacon(0, seconds=400), beacon(1, seconds=400)]
    late = facts(400, [instance(0), instance(1)], beacons, watched_since=at(399))
    assert decide(spec(), launched().add("wish", "stop", 60, reason="r").state, late) == (Stop("i-0", 1),)
    assert verdict_of(launched().add("wish", "stop", 60, reason="r", cap=True), late).kind == "capped"


def test_a_script_that_does_not_look_is_ended_after_the_grace() -> None:
    book = launched().add("wish", "stop", 60, reason="r")
    late = facts(
        200, [instance(0), instance(1)], [beacon(0, seconds=200), beacon(1, seconds=200)], stops_sent=frozenset({1})
    )
    verdict = verdict_of(book, late)
    assert "did not exit within" in verdict.message
    book.add("intent", "end", 200, verdict=verdict.to_json())
    assert decide(spec(), book.state, late) == (Kill(("i-0", "i-1"), 1),)


def test_deadline_and_dollar_cap_stop_the_run_while_there_is_time_to_save() -> None:
    assert decide(spec(max_duration="3m"), launched().state, running()) == (
        Wish("stop", "max_duration of 3m00s is near"),
    )
    capped = spec(max_cost="60")
    assert decide(capped, launched().state, running(cost_so_far=50_000_000, cost_per_second=1000)) == ()
    near = decide(capped, launched().state, running(cost_so_far=59_000_000, cost_per_second=10_000))
    assert near == (Wish("stop", "max_cost of $60.00 is near"),)


def test_nothing_is_launched_that_a_cap_would_stop_at_once() -> None:
    book = launched().add("intent", "end", 60, verdict=Verdict("interrupted", "m").to_json())
    book.add("outcome", "close", 70, generation=1).add("wish", "resume", 100)
    capped, spent = spec(max_cost="60"), facts(101, cost_so_far=59_900_000)
    assert decide(capped, book.state, spent) == (Wish("stop", "max_cost of $60.00 is near"),)
    book.add("wish", "stop", 101, reason="max_cost of $60.00 is near", cap=True)
    assert verdict_of(book, spent, max_cost="60").kind == "capped"
    assert decide(spec(), Book().add("wish", "note", 0).state, facts(3550))[0] == Wish(
        "stop", "max_duration of 1h00m is near"
    )


def test_after_the_verdict_nodes_upload_then_go_then_everything_else_then_the_report() -> None:
    book = launched().add("intent", "end", 60, verdict=Verdict("finished", "m").to_json())
    state = book.state
    done = [beacon(i, "exited", 60, exit_code=0, synced=False) for i in range(2)]
    both = [instance(0), instance(1)]
    assert decide(spec(), state, facts(62, both, done)) == ()
    synced = [replace(b, synced=True) for b in done]
    assert decide(spec(), state, facts(62, both, synced)) == (Terminate(PAIR, "finished"),)
    going = [instance(i, "shutting-down", end_time=at(63), end_reason="Client.UserInitiatedShutdown") for i in range(2)]
    assert decide(spec(), state, facts(64, going, synced)) == tuple(Record(item) for item in going)
    gone = [replace(item, state="terminated") for item in going]
    recorded = {"i-0": "terminated", "i-1": "terminated"}
    assert decide(spec(), state, facts(66, gone, synced, recorded=recorded)) == tuple(Delete(r) for r in RESOURCES)
    last = decide(spec(), state, facts(68, gone, synced, recorded=recorded, resources=()))
    assert last == (Close(Verdict("finished", "m")),)
    book.add("outcome", "close", 70, generation=1)
    assert decide(spec(), book.state, facts(71, gone, recorded=recorded, resources=())) == ()


def test_nodes_that_never_upload_do_not_hold_up_the_end() -> None:
    book = launched().add("intent", "end", 60, verdict=Verdict("failed", "m").to_json())
    both = [instance(0), instance(1)]
    stuck = facts(155, both, [beacon(0, seconds=60), beacon(1, seconds=60)], killed=frozenset((i, 1) for i in PAIR))
    assert decide(spec(), book.state, stuck) == (Terminate(PAIR, "failed"),)


def test_finished_is_never_said_while_an_instance_may_still_exist() -> None:
    book = launched().add("intent", "end", 60, verdict=Verdict("failed", "m").to_json())
    assert decide(spec(), book.state, facts(65, [])) == (Terminate(PAIR, "failed"),), "launched but not shown yet"


def test_a_run_that_ended_can_be_resumed_as_a_new_generation() -> None:
    book = launched().add("intent", "end", 60, verdict=Verdict("stopped", "m").to_json())
    book.add("outcome", "close", 70, generation=1).add("wish", "resume", 100)
    gone = [instance(i, "terminated", end_time=at(63)) for i in range(2)]
    recorded = {"i-0": "terminated", "i-1": "terminated"}
    seen = facts(101, gone, recorded=recorded)
    assert decide(spec(), book.state, seen) == (Launch(2, 1, 0),)
    assert find_phase(book.state, seen) == "launching"


def test_a_conclusion_that_a_scheduler_slept_over_is_not_that_of_the_run() -> None:
    end = launched().add("intent", "end", 60, verdict=Verdict("failed", "fell silent").to_json()).entries[-1]
    stop = Book().add("wish", "stop", 60, reason="max_cost is near", cap=True).entries[-1]
    later = launched().add("intent", "create", 61).entries
    later[-1] = replace(later[-1], epoch=2)
    for late in (end, stop):
        state = replay([*later, replace(late, seq=len(later) + 1)])
        assert (state.verdict, state.stop) == (None, None)
    assert replay([*later, replace(stop, seq=len(later) + 1, epoch=0)]).stop is not None, "a user has no epoch"
    again = Book().tried(2, 1, None).entries[-1]
    assert decide(spec(), replay([*later, replace(again, seq=len(later) + 1)]), running()) == (), "not repeated"


def test_deciding_twice_on_equal_facts_gives_equal_actions() -> None:
    for book, seen in ((launched(), running()), (Book(), facts())):
        assert decide(spec(), book.state, seen) == decide(spec(), book.state, seen)


@pytest.mark.parametrize("length", range(5))
def test_replaying_any_prefix_never_forgets_a_launch(length: int) -> None:
    book = Book().tried(1, 0, "no-capacity").tried(2, 1, "launched", ids=PAIR)
    book.entries = book.entries[:length]
    state = book.state
    assert len(state.launches) == (length + 1) // 2
    assert (state.launched is not None) == (length == 4)
