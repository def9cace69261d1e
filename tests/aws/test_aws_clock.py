from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.aws.clock import ServerClock

TEN = "Fri, 20 Nov 2026 20:36:10 GMT"
ELEVEN = "Fri, 20 Nov 2026 20:36:11 GMT"
AT_TEN = datetime(2026, 11, 20, 20, 36, 10, tzinfo=UTC)


@pytest.fixture
def elapsed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [5000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_before_the_first_reply_there_is_no_time() -> None:
    clock = ServerClock()
    clock.note("not a date")
    assert clock.now() is None


def test_between_replies_time_goes_on(elapsed: list[float]) -> None:
    clock = ServerClock()
    clock.note(TEN)
    elapsed[0] += 90
    assert clock.now() == AT_TEN + timedelta(seconds=90)


def test_a_reply_within_the_same_second_does_not_turn_time_back(elapsed: list[float]) -> None:
    clock = ServerClock()
    clock.note(TEN)
    elapsed[0] += 0.7
    clock.note(TEN)
    assert clock.now() == AT_TEN + timedelta(seconds=0.7)


def test_the_server_is_right_when_the_local_clock_ran_slow_or_fast(elapsed: list[float]) -> None:
    clock = ServerClock()
    clock.note(TEN)
    elapsed[0] += 0.1  # the machine slept meanwhile, say
    clock.note(ELEVEN)
    assert clock.now() == AT_TEN + timedelta(seconds=1)
    elapsed[0] += 60
    clock.note(ELEVEN)
    assert clock.now() == AT_TEN + timedelta(seconds=2)
