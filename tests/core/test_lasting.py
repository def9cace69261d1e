"""When a run ended, and how long it lasted: by EC2's word for its last machine, whenever somebody looked."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.lasting import ended_at, lasted
from orchestrator.core.ledger import Verdict
from tests.core.worlds import Book, at, instance


def closed(generation: int = 1, **seen: str) -> Book:
    """Return a ledger that was closed at 900 s."""
    book = Book().tried(1, 0, "launched", ids=["i-0"])
    book.add("intent", "end", 890, verdict=Verdict("stopped", "as asked").to_json())
    return book.add("outcome", "close", 900, generation=generation, **seen)


def test_a_run_ends_with_its_last_machine_whenever_somebody_looks() -> None:
    gone = [instance(0, "terminated", end_time=at(70)), instance(1, "terminated", end_time=at(80))]
    assert ended_at(closed().state, gone) == at(80)
    assert ended_at(Book().state, gone) is None
    assert lasted(at(0), None, at(100)) == timedelta(seconds=100)
    assert lasted(at(0), at(80), at(100)) == timedelta(seconds=80)


def test_a_run_without_a_machine_ends_when_that_was_seen() -> None:
    assert ended_at(closed().state, []) == at(900)
    assert ended_at(closed(ended="2026-11-20T12:14:00Z").state, []) == at(840)


def test_machines_from_before_a_resume_do_not_tell_when_it_ended() -> None:
    book = closed().add("wish", "resume", 1000)
    book.add("intent", "end", 1100, verdict=Verdict("no-capacity", "no room").to_json())
    old = instance(0, "terminated", end_time=at(80))
    assert ended_at(book.state, [old]) is None
    assert ended_at(book.add("outcome", "close", 1200, generation=2).state, [old]) == at(1200)
