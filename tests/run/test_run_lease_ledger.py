"""One scheduler at a time, and a ledger that two writers cannot spoil: over real conditional writes."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import ATTEMPTS
from orchestrator.core.ids import Keys
from orchestrator.errors import BadInput, OrchError, StaleEpoch, Unreachable
from orchestrator.run.lease import LIFETIME, Lease, Owner
from orchestrator.run.ledger import Ledger
from orchestrator.run.wish import ask_resume, ask_stop
from orchestrator.sandbox.cloud import SandboxCloud
from orchestrator.sandbox.faults import REPLY_LOST

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def owner(name: str) -> Owner:
    return Owner("elsewhere", 1, name)


def test_the_lease_has_one_owner_until_it_expires_and_its_epoch_grows(bucket: Bucket) -> None:
    first, second = (Lease(bucket, "lease-1", owner(name)) for name in "ab")
    assert first.try_acquire(NOW)
    assert not second.try_acquire(NOW + LIFETIME / 2)
    first.renew(NOW + LIFETIME / 2)
    assert not second.try_acquire(NOW + LIFETIME)
    assert second.try_acquire(NOW + 2 * LIFETIME)
    assert (first.epoch, second.epoch) == (1, 2)


def test_an_owner_that_lost_the_lease_learns_it_at_once(bucket: Bucket) -> None:
    first, second = (Lease(bucket, "lease-2", owner(name)) for name in "ab")
    first.try_acquire(NOW)
    second.try_acquire(NOW + 2 * LIFETIME)
    with pytest.raises(StaleEpoch):
        first.renew(NOW)


def test_holding_a_lease_renews_it_in_time_and_notices_its_loss(bucket: Bucket) -> None:
    first, second = (Lease(bucket, "lease-7", owner(name)) for name in "ab")
    first.try_acquire(NOW)
    for part in range(1, 7):
        first.hold(NOW + part * LIFETIME / 2)
    assert not second.try_acquire(NOW + LIFETIME * 3.5)
    second.try_acquire(NOW + LIFETIME * 5)
    with pytest.raises(StaleEpoch):
        first.hold(NOW + LIFETIME * 5)


def test_an_owner_whose_renewal_was_taken_but_not_answered_keeps_the_lease(bucket: Bucket, cloud: SandboxCloud) -> None:
    mine, other = (Lease(bucket, "lease-6", owner(name)) for name in "ab")
    mine.try_acquire(NOW)
    cloud.add_fault("PutObject", REPLY_LOST, ATTEMPTS)
    with pytest.raises(Unreachable):
        mine.renew(NOW + LIFETIME / 2)
    mine.renew(NOW + LIFETIME)
    assert not other.try_acquire(NOW + LIFETIME * 1.5)
    assert mine.epoch == 1


def test_a_dead_process_of_this_machine_does_not_hold_up_its_successor(bucket: Bucket) -> None:
    me = Owner.me()
    gone = Owner(me.machine, 2**22 + 1, "x")
    assert gone.surely_dead()
    assert not me.surely_dead()
    assert Lease(bucket, "lease-3", gone).try_acquire(NOW)
    assert Lease(bucket, "lease-3", me).try_acquire(NOW)


def test_a_killed_process_that_nobody_has_taken_note_of_is_dead_too() -> None:
    child = subprocess.Popen(["sleep", "60"])
    owner = Owner(Owner.me().machine, child.pid, "x")
    assert not owner.surely_dead()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner.surely_dead()
    child.wait()


def test_a_released_lease_is_free(bucket: Bucket) -> None:
    first, second = (Lease(bucket, "lease-4", owner(name)) for name in "ab")
    first.try_acquire(NOW)
    first.release(NOW + timedelta(seconds=1))
    assert second.try_acquire(NOW + timedelta(seconds=2))


def test_of_many_who_want_a_free_lease_one_gets_it(bucket: Bucket) -> None:
    leases = [Lease(bucket, "lease-5", owner(str(n))) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda lease: lease.try_acquire(NOW), leases)) == 1


def test_writers_at_once_lose_no_entry(bucket: Bucket) -> None:
    ledgers = [Ledger(bucket, "ledger-1", f"writer {n}") for n in range(6)]

    def write(ledger: Ledger) -> None:
        for n in range(3):
            ledger.append("wish", "note", {"n": n}, epoch=0, now=NOW)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, ledgers))
    reader = Ledger(bucket, "ledger-1", "reader")
    reader.read()
    assert [entry.seq for entry in reader.entries] == list(range(1, 19))
    assert len({(entry.actor, entry.detail["n"]) for entry in reader.entries}) == 18


def test_an_entry_that_cannot_be_read_stops_everything(bucket: Bucket) -> None:
    bucket.put(Keys("ledger-2").entry(1), b"{}")
    with pytest.raises(OrchError, match="cannot be read"):
        Ledger(bucket, "ledger-2", "reader").read()


def test_stop_is_asked_once_and_resume_only_of_what_ended(bucket: Bucket) -> None:
    assert ask_stop(bucket, "wish-1", "me").stop is not None
    assert ask_stop(bucket, "wish-1", "you").last_seq == 1
    assert ask_resume(bucket, "wish-1", "me").generation == 1, "it has not ended: it simply goes on"
    ledger = Ledger(bucket, "wish-1", "scheduler")
    ledger.read()
    verdict = {"kind": "stopped", "message": "m"}
    ledger.append("intent", "end", {"verdict": verdict}, epoch=1, now=NOW)
    ledger.append("outcome", "close", {"generation": 1}, epoch=1, now=NOW)
    assert ask_stop(bucket, "wish-1", "me").closed
    resumed = ask_resume(bucket, "wish-1", "me")
    assert (resumed.generation, resumed.stop, resumed.verdict, resumed.closed) == (2, None, None, False)


def test_a_finished_run_is_not_resumed(bucket: Bucket) -> None:
    ledger = Ledger(bucket, "wish-2", "scheduler")
    ledger.append("intent", "end", {"verdict": {"kind": "finished", "message": "m"}}, epoch=1, now=NOW)
    ledger.append("outcome", "close", {"generation": 1}, epoch=1, now=NOW)
    with pytest.raises(BadInput, match="nothing to resume"):
        ask_resume(bucket, "wish-2", "me")
