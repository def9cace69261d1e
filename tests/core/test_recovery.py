"""What is done about losses and failures: who stays, what is launched, when a run gives up. From facts alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.actions import Action, End, Kill, Launch, Record, Recover, Start, Terminate
from orchestrator.core.beacon import Beacon
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts, Node
from orchestrator.core.gang import Gang
from orchestrator.core.ledger import Recovery, Verdict, replay
from orchestrator.core.phase import find_phase
from orchestrator.core.units import iso
from tests.core.gangs import FOUR, ended, four, gang_of_four, recovered, recovery_of, taken, verdict_of, world
from tests.core.worlds import Book, at, beacon, facts, instance, spec


def test_only_what_was_lost_is_launched_where_the_survivors_are() -> None:
    book, seen = four(), world(60, [taken(1, 59)])
    assert recovered(book, seen) == Recovery(
        generation=1,
        kind="interrupted",
        cause="EC2 took node 1 (i-1, us-east-1a) back: Server.SpotInstanceTermination",
        kept={"i-0": 0, "i-2": 2, "i-3": 3},
        going=(),
        missing=1,
        offer=0,
        graceful=False,
        trained=True,
        size=4,
        asks=(0,),
        time=at(60),
    )
    assert find_phase(book.state, seen) == "recovering"
    assert decide(gang_of_four(), book.state, seen) == (Kill(("i-0", "i-2", "i-3"), 1), Launch(2, 1, 0, count=1))


def test_the_replacement_takes_the_free_rank_and_all_start_as_one_generation() -> None:
    book = four()
    recovered(book, world(60, [taken(1, 59)]))
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=61)
    fresh = instance(9, launch_index=0)
    stopped = [ended(i, 65, exit_code=143) for i in (0, 2, 3)]
    seen = world(66, [taken(1, 59)], stopped)
    seen = replace(seen, instances=(*seen.instances, fresh), nodes={**seen.nodes, "i-9": Node(("key",))})
    ranks = {"i-0": 0, "i-9": 1, "i-2": 2, "i-3": 3}
    gang = Gang.of(book.state, seen)
    assert list(gang.ranks.items()) == list(ranks.items())
    assert gang.addresses == ("127.16.0.10", "127.16.0.19", "127.16.0.12", "127.16.0.13")
    assert decide(gang_of_four(), book.state, seen) == (Start(("i-0", "i-9", "i-2", "i-3"), ranks, 2),)
    again = [beacon(i, seconds=70, generation=2) for i in (0, 2, 3)]
    late = replace(seen, nodes={**seen.nodes, **{b.instance_id: Node(("key",), None, b) for b in again}})
    assert decide(gang_of_four(), book.state, late) == (Start(("i-9",), ranks, 2),)


def test_a_notice_launches_the_replacement_at_once_and_waits_for_the_checkpoint() -> None:
    book = four()
    notice = beacon(2, seconds=60, notice="2026-11-20T12:03:00Z")
    seen = world(60, said=[notice])
    found = recovered(book, seen)
    assert (found.graceful, found.going, found.missing) == (True, ("i-2",), 1)
    assert decide(gang_of_four(), book.state, seen) == (Launch(2, 1, 0, count=1),), "nobody is killed"
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=61)

    def later(seconds: float, *said: Beacon) -> Facts:
        now = world(seconds, said=said)
        return replace(now, instances=(*now.instances, instance(9)), nodes={**now.nodes, "i-9": Node(("key",))})

    saving = later(70, replace(notice, time=beacon(2, seconds=70).time))
    assert decide(gang_of_four(), book.state, saving) == ()
    uploading = [ended(i, 72, synced=i != 0, stopped_step=40 if i == 0 else None) for i in range(4)]
    uploading[2] = replace(uploading[2], notice=notice.notice)
    assert decide(gang_of_four(), book.state, later(72, *uploading)) == (), "the checkpoint is not in S3 yet"
    saved = [replace(b, synced=True) for b in uploading]
    (start,) = decide(gang_of_four(), book.state, later(74, *saved))
    assert isinstance(start, Start)
    assert set(start.instance_ids) == {"i-0", "i-1", "i-3", "i-9"}, "the one that is going is left to EC2"


def test_a_training_that_was_done_before_it_heard_of_the_notice_is_done() -> None:
    book = four()
    recovered(book, world(60, said=[beacon(2, seconds=60, notice="soon")]))
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=61)

    def later(**changes: Any) -> tuple[Action, ...]:
        said = [replace(ended(i, 66, exit_code=0), **(changes if i == 2 else {})) for i in range(4)]
        now = world(66, said=said)
        return decide(gang_of_four(), book.state, replace(now, instances=(*now.instances, instance(9))))

    assert verdict_of(later()).kind == "finished"
    for changes in ({"synced": False}, {"exit_code": 75}, {"stopped_step": 40}, {"generation": 0}):
        assert not [action for action in later(**changes) if isinstance(action, End)], changes


def test_an_announced_end_that_does_not_come_is_not_paid_for_for_ever() -> None:
    book = four()
    recovered(book, world(60, said=[beacon(2, seconds=60, notice="soon")]))
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=61)
    new = [beacon(i, seconds=400, generation=2) for i in (0, 1, 3)]
    old = ended(2, 400, notice="soon")
    seen = world(400, said=[*new, old])
    replacement = Node(("key",), None, replace(beacon(9, seconds=400, generation=2), rank=2))
    seen = replace(seen, instances=(*seen.instances, instance(9)), nodes={**seen.nodes, "i-9": replacement})
    assert decide(gang_of_four(), book.state, seen) == (Terminate(("i-2",), "replaced"),)


def test_a_training_that_does_not_save_in_time_is_ended() -> None:
    book = four()
    seen = world(60, said=[beacon(2, seconds=60, notice="soon")])
    recovered(book, seen)
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=61)
    late = world(185, said=[beacon(2, seconds=185, notice="soon")])
    late = replace(late, instances=(*late.instances, instance(9)), nodes={**late.nodes, "i-9": Node(("key",))})
    kills = [action for action in decide(gang_of_four(), book.state, late) if isinstance(action, Kill)]
    assert kills == [Kill(("i-0", "i-1", "i-3", "i-2"), 1)]
    killed = replace(late, killed=frozenset((i, 1) for i in FOUR))
    assert not [action for action in decide(gang_of_four(), book.state, killed) if isinstance(action, Kill)]


def test_a_training_that_nobody_ended_in_time_is_ended_before_it_begins_again() -> None:
    book = four()
    recovered(book, world(60, said=[beacon(2, seconds=60, notice="soon")]))
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=61)
    late = world(400, [taken(2, 200)])
    late = replace(late, instances=(*late.instances, instance(9)), nodes={**late.nodes, "i-9": Node(("key",))})
    assert decide(gang_of_four(), book.state, late)[0] == Kill(("i-0", "i-1", "i-3"), 1)
    assert not [action for action in decide(gang_of_four(), book.state, late) if isinstance(action, Start)]
    killed = replace(late, killed=frozenset((i, 1) for i in FOUR))
    assert not decide(gang_of_four(), book.state, killed), "a kill under way may never arrive"
    over = {i: replace(late.nodes[i], beacon=beacon(int(i[2:]), "exited", 400, exit_code=143)) for i in FOUR}
    gone = replace(killed, nodes={**late.nodes, **over})
    assert [action for action in decide(gang_of_four(), book.state, gone) if isinstance(action, Start)]


def test_a_notice_that_came_too_late_to_save_leaves_nobody_waiting() -> None:
    book = four()
    notice = beacon(2, seconds=60, notice="soon")
    recovered(book, world(60, said=[notice]))
    gone = world(65, [taken(2, 64)], [notice])
    actions = decide(gang_of_four(), book.state, gone)
    assert Kill(("i-0", "i-1", "i-3"), 1) in actions, "one rank is gone: the others cannot save any more"


def test_two_notices_at_once_are_one_recovery_and_a_second_look_does_nothing() -> None:
    book = four()
    seen = world(60, said=[beacon(i, seconds=60, notice="soon") for i in (1, 2)])
    found = recovered(book, seen)
    assert (found.kept, found.going, found.missing) == ({"i-0": 0, "i-3": 3}, ("i-1", "i-2"), 2)
    assert decide(gang_of_four(), book.state, seen) == (Launch(2, 1, 0, count=2),)


def test_a_second_notice_during_recovery_is_one_more_recovery_that_still_waits_for_the_save() -> None:
    book = four()
    first = beacon(1, seconds=60, notice="soon")
    recovered(book, world(60, said=[first]))
    found = recovered(book, world(62, said=[first, beacon(2, seconds=62, notice="soon")]))
    assert (found.generation, found.graceful, found.kept) == (2, True, {"i-0": 0, "i-3": 3})
    assert found.going == ("i-1", "i-2")
    assert found.missing == 2


def test_a_replacement_that_ec2_takes_while_it_boots_is_replaced() -> None:
    book = four()
    recovered(book, world(60, [taken(1, 59)]))
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=61)
    seen = world(70, [taken(1, 59), taken(9, 69)])
    found = recovered(book, seen)
    assert (found.generation, found.kind, found.kept) == (2, "interrupted", {"i-0": 0, "i-2": 2, "i-3": 3})
    assert decide(gang_of_four(), book.state, seen)[-1] == Launch(3, 1, 0, count=1)


def test_with_most_of_it_lost_the_gang_moves_once_its_last_machine_left_the_placement_group() -> None:
    book, gone = four(), [taken(i, 59) for i in (1, 2, 3)]
    seen = world(60, gone)
    found = recovered(book, seen)
    assert (found.kept, found.going, found.missing) == ({}, ("i-0",), 4)
    assert decide(gang_of_four(), book.state, seen) == (Kill(("i-0",), 1),)
    saved = world(66, gone, [ended(0, 66)])
    assert decide(gang_of_four(), book.state, saved) == (Terminate(("i-0",), "replaced"),)
    empty = world(70, [taken(i, 59) for i in range(4)])
    assert decide(gang_of_four(), book.state, empty) == (Launch(2, 1, 1),), "not where it was just interrupted"


def test_without_room_beside_the_survivors_the_gang_moves() -> None:
    book = four()
    recovered(book, world(60, [taken(1, 59)]))
    book.tried(1, 0, "no-capacity", "InsufficientInstanceCapacity", generation=2, count=1, seconds=61)
    saved = [ended(i, 66) for i in (0, 2, 3)]
    actions = decide(gang_of_four(), book.state, world(66, [taken(1, 59)], saved))
    assert actions == (Terminate(("i-0", "i-2", "i-3"), "replaced"),)

    def empty(seconds: float) -> Facts:
        return world(seconds, [taken(i, 69) for i in range(4)])

    assert decide(gang_of_four(), book.state, empty(70)) == (Launch(2, 2, 1),)
    book.tried(2, 1, "no-capacity", generation=2, seconds=70).tried(3, 2, "no-capacity", generation=2, seconds=70)
    assert decide(gang_of_four(), book.state, empty(70)) == (Launch(2, 4, 0),), "the place it was in is tried last"
    book.tried(4, 0, "no-capacity", generation=2, seconds=70)
    verdict = verdict_of(decide(gang_of_four(capacity_wait="29s"), book.state, empty(70)))
    assert verdict.kind == "no-capacity"
    assert "EC2 took node 1" in verdict.message
    assert "orch resume" in verdict.hint
    assert decide(gang_of_four(), book.state, empty(99)) == (), "it waits for room"
    assert decide(gang_of_four(), book.state, empty(100)) == (Launch(2, 5, 1),), "and asks all of them again"


def test_a_launch_that_nobody_knows_the_end_of_comes_before_any_recovery() -> None:
    book = four()
    recovered(book, world(60, [taken(1, 59)]))
    book.tried(1, 0, None, generation=2, count=1, seconds=61)
    seen = world(70, [taken(1, 59), taken(2, 69)])
    assert decide(gang_of_four(), book.state, seen) == (Launch(2, 1, 0, {"ClientToken": "1"}, 1),)


def failing(seconds: float, step: int | None, **changes: Any) -> Facts:
    progress = {"step": step} if step is not None else None
    said = [beacon(i, "exited", seconds, exit_code=1, synced=True, progress=progress, **changes) for i in range(4)]
    return world(seconds, said=said)


def test_a_failure_of_the_users_code_is_tried_again_on_the_same_machines_when_it_made_steps() -> None:
    book, run = four(), gang_of_four()
    assert verdict_of(decide(run, book.state, failing(60, None))).kind == "failed", "an error at once is not"
    found = recovered(book, failing(60, 40))
    assert (found.kind, found.missing, len(found.kept)) == ("failed", 0, 4)
    (start,) = decide(run, book.state, failing(61, 40))
    assert start == Start(FOUR, {name: rank for rank, name in enumerate(FOUR)}, 2)


@pytest.mark.parametrize(
    ("trouble", "message", "advice"),
    [
        ("memory", "the machine's memory ran out", "more memory"),
        ("gpu-memory", "the GPU's memory ran out", "smaller batch on each GPU"),
        ("killed", "killed by SIGKILL", "if nobody killed it by hand"),
        ("disk", "no space was left (1.0 KiB of its disk are free)", "raise resources.disk_size"),
    ],
)
def test_what_ran_out_is_said_with_what_to_do_about_it(trouble: Any, message: str, advice: str) -> None:
    said = failing(60, None)
    first = said.nodes["i-2"].beacon
    assert first is not None
    broken = replace(first, trouble=trouble, disk_free=1024, tail=("connection reset by peer",))
    seen = replace(said, nodes={**said.nodes, "i-2": replace(said.nodes["i-2"], beacon=broken)})
    verdict = verdict_of(decide(gang_of_four(), four().state, seen))
    assert (verdict.rank, verdict.kind) == (2, "failed"), "whoever ran out of something is the cause"
    assert message in verdict.message
    assert advice in verdict.hint


def test_a_training_that_filled_the_disk_is_not_begun_again_on_the_same_disk() -> None:
    verdict = verdict_of(decide(gang_of_four(), four().state, failing(60, 40, trouble="disk")))
    assert "the same machines would have no more room" in verdict.message
    assert recovery_of(decide(gang_of_four(), four().state, failing(60, 40, trouble="memory"))).kind == "failed"


def test_a_failure_is_tried_again_only_after_new_steps_and_only_so_often() -> None:
    book = four()
    recovered(book, failing(60, 40))
    book.add("intent", "start", 61, generation=2, restore_step=40)
    verdict = verdict_of(decide(gang_of_four(), book.state, failing(80, 40, generation=2)))
    assert "no step was made since the last start" in verdict.message
    recovered(book, failing(80, 41, generation=2))
    book.add("intent", "start", 81, generation=3, restore_step=41)
    verdict = verdict_of(decide(gang_of_four(), book.state, failing(99, 50, generation=3)))
    assert (verdict.kind, "tried again 2 times" in verdict.message) == ("failed", True)
    assert verdict_of(decide(gang_of_four(retries=0), four().state, failing(60, 40))).kind == "failed"


def test_a_training_that_makes_no_steps_any_more_is_a_failure_where_that_is_asked_for() -> None:
    hangs = [
        beacon(i, seconds=160, progress={"step": 40, "time": at(60).timestamp()} if i == 0 else None) for i in range(4)
    ]
    seen = world(160, said=hangs)
    assert decide(gang_of_four(), four().state, seen) == ()
    assert decide(gang_of_four(stall_timeout="2m"), four().state, seen) == ()
    found = recovery_of(decide(gang_of_four(stall_timeout="90s"), four().state, seen))
    assert (found.kind, found.missing, found.cause.partition(":")[0]) == ("failed", 0, "no step for 1m30s")
    begins = [replace(b, progress=None) for b in hangs]
    assert decide(gang_of_four(stall_timeout="90s"), four().state, world(160, said=begins)) == (), (
        "before the first step"
    )


def test_a_member_that_ec2_does_not_show_yet_stays_when_another_is_lost() -> None:
    def hidden(seconds: float) -> Facts:
        shown = [taken(0, 59), instance(1), instance(2)]
        said = [beacon(i, seconds=seconds) for i in (1, 2)]
        return facts(seconds, shown, said, recorded={"i-0": "terminated"})

    book = four()
    found = recovered(book, hidden(60))
    assert (set(found.kept), found.missing) == ({"i-1", "i-2", "i-3"}, 1)
    assert not any(isinstance(action, Recover) for action in decide(gang_of_four(), book.state, hidden(61)))
    assert "no longer knows i-3" in recovery_of(decide(gang_of_four(), book.state, hidden(300))).cause


def test_ranks_that_crash_because_a_peer_was_taken_are_no_error_of_the_user() -> None:
    crashed = [beacon(i, "exited", 61, exit_code=1, tail=("connection reset",)) for i in (0, 2, 3)]
    assert recovery_of(decide(gang_of_four(), four().state, world(61, [taken(1, 60)], crashed))).kind == "interrupted"


def test_what_a_person_terminated_is_not_brought_back() -> None:
    by_hand = taken(1, 59, end_reason="Client.UserInitiatedShutdown")
    verdict = verdict_of(decide(gang_of_four(), four().state, world(60, [by_hand])))
    assert (verdict.kind, "through the API" in verdict.message) == ("failed", True)


def test_a_node_that_has_done_and_saved_its_work_may_go() -> None:
    done = [ended(i, 60, exit_code=0) for i in range(4)]
    assert verdict_of(decide(gang_of_four(), four().state, world(60, [taken(1, 59)], done))).kind == "finished"
    unsaved = [replace(b, synced=b.rank != 1) for b in done]
    assert recovery_of(decide(gang_of_four(), four().state, world(60, [taken(1, 59)], unsaved))).missing == 1


def test_a_node_that_does_not_boot_is_replaced_while_most_of_the_others_do() -> None:
    def booting(*failed: int) -> Facts:
        machines = [instance(i) for i in range(4)]
        nodes = {f"i-{i}": Node((), "no bundle") if i in failed else Node(("key",)) for i in range(4)}
        return replace(facts(30, machines), nodes=nodes)

    assert recovery_of(decide(gang_of_four(), four().state, booting(1))).missing == 1
    assert verdict_of(decide(gang_of_four(), four().state, booting(1, 2, 3))).details == ("no bundle",)


def test_a_run_of_one_node_moves() -> None:
    book, one = Book().tried(1, 0, "launched", ids=["i-0"]), spec(1)
    seen = facts(60, [instance(0)], [beacon(0, seconds=60, notice="soon")])
    found = recovered(book, seen, one)
    assert (found.kept, found.going, found.missing, found.graceful) == ({}, ("i-0",), 1, True)


def test_the_stop_of_a_noticed_gang_that_cannot_be_replaced_is_an_interruption() -> None:
    saved = [ended(i, 60, stopped_step=40 if i == 0 else None, checkpoint_step=40) for i in range(4)]
    saved[2] = replace(saved[2], notice="soon")
    verdict = verdict_of(decide(gang_of_four(max_duration="3m"), four().state, world(60, said=saved)))
    assert (verdict.kind, "saved at step 40" in verdict.message) == ("interrupted", True)


def test_a_verdict_during_a_recovery_ends_the_training_of_either_generation() -> None:
    book = four()
    recovered(book, world(60, [taken(1, 59)]))
    book.add("intent", "end", 62, verdict=Verdict("stopped", "m").to_json())
    said = [beacon(0, seconds=62, generation=2)]
    actions = decide(gang_of_four(), book.state, world(62, [taken(1, 59)], said))
    assert actions == (Kill(("i-2", "i-3"), 1), Kill(("i-0",), 2))


def test_replaying_is_deaf_to_what_came_twice_or_too_late() -> None:
    book, seen = four(), world(60, [taken(1, 59)])
    found = recovered(book, seen)
    once = book.state
    book.add("intent", "recover", 61, **found.to_json())
    assert replace(book.state, last_seq=once.last_seq) == once
    book.add("intent", "start", 70, generation=1, restore_step=1)
    book.add("intent", "start", 70, generation=2, restore_step=40)
    book.add("intent", "start", 71, generation=2, restore_step=60)
    assert (book.state.restore_known, book.state.restore_step) == (True, 40)
    book.add("intent", "end", 72, verdict=Verdict("stopped", "m").to_json()).add("outcome", "close", 73, generation=2)
    book.add("wish", "resume", 80)
    after = book.state
    assert (after.generation, after.recoveries, after.restore_known, after.kept) == (3, (), False, {})


def test_every_prefix_of_a_recovery_leads_to_the_next_entry() -> None:
    book, seen = four(), world(60, [taken(1, 59)])
    recovered(book, seen)
    book.tried(1, 0, "launched", ids=["i-9"], generation=2, count=1, seconds=60)
    for length in range(2, len(book.entries)):
        state, following = replay(book.entries[:length]), book.entries[length]
        actions = decide(gang_of_four(), state, seen)
        wanted = Recover if following.action == "recover" else Launch
        assert [a for a in actions if isinstance(a, wanted)], (length, following.action, actions)
        assert decide(gang_of_four(), state, seen) == actions


def test_what_ec2_says_of_the_lost_is_kept_before_it_forgets() -> None:
    lost = taken(1, 59)
    actions = decide(gang_of_four(), four().state, world(60, [lost], recorded={}))
    assert actions[0] == Record(lost)


def test_a_failure_is_told_as_soon_as_all_others_were_heard_well_after_it() -> None:
    def seen(heard: float, *, late: float = 0, tail: tuple[str, ...] = ("no such file",)) -> tuple[Action, ...]:
        broken = ended(2, heard, exit_code=3, exit_time=iso(at(60)), tail=tail)
        others = [beacon(i, seconds=heard - late * (i == 3)) for i in (0, 1, 3)]
        return decide(gang_of_four(), four().state, world(heard, said=[broken, *others]))

    assert seen(61.9) == ()
    assert seen(64, late=2.5) == (), "the last of them may have failed before"
    assert verdict_of(seen(62)).rank == 2
    assert seen(67, tail=("connection reset by peer",)) == (), "a peer may be to blame"
    assert verdict_of(seen(68, tail=("connection reset by peer",))).rank == 2
