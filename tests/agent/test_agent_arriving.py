"""What is needed first is there before the training; the rest arrives beside it, and who waits is told the truth."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.agent import staging
from orchestrator.agent.stage import Rest, stage
from orchestrator.errors import NoPermission, Unreachable
from tests.agent.agent_world import FolderStore, node_config
from tests.agent.test_agent_fetch import SOURCE, fill, here
from trainer.data import arrival
from trainer.errors import TrainerError

SIZES = {"small.bin": 50, "large/one.bin": 300, "large/two.bin": 200}
PHASES = {"large/one.bin": 1, "large/two.bin": 1}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "s3")


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def begin(store: FolderStore, home: Path, *, wait_all: bool = False) -> Rest | None:
    return stage(node_config(home, data=(replace(SOURCE, wait_all=wait_all),)), lambda *_: store)


def failing(store: FolderStore, error: Exception) -> None:
    """Let every read of the second phase end in `error`."""
    read = store.read

    def fail(key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        if "large" in key:
            raise error
        return read(key, start, stop, etag)

    store.read = fail  # type: ignore[method-assign]


def test_the_first_phase_is_there_and_the_rest_is_named_until_it_came(tmp_path: Path, store: FolderStore) -> None:
    bodies = fill(store, SIZES, PHASES)
    rest = begin(store, tmp_path)
    assert rest is not None
    root = tmp_path / "data/set"
    assert here(tmp_path) == {
        "small.bin": bodies["small.bin"],
        ".arriving": b"large/one.bin\nlarge/two.bin\n",
    }
    assert arrival.on_their_way(root, ["small.bin", "large/two.bin", "none.bin"]) == ["large/two.bin"]
    rest.bring()
    assert here(tmp_path) == bodies
    assert arrival.on_their_way(root, list(SIZES)) == []
    assert begin(store, tmp_path) is None, "another start has nothing to wait for"


def test_all_is_waited_for_when_the_experiment_says_so(tmp_path: Path, store: FolderStore) -> None:
    bodies = fill(store, SIZES, PHASES)
    assert begin(store, tmp_path, wait_all=True) is None
    assert here(tmp_path) == bodies


def test_it_is_told_how_far_each_phase_is_before_anything_of_the_next_comes(tmp_path: Path, store: FolderStore) -> None:
    fill(store, SIZES | {"tiny.bin": 3}, PHASES)
    rest = begin(store, tmp_path)
    told: list[object] = []
    read = store.read

    def note(key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        told.append(json.loads(node_config(tmp_path).staging_file.read_text())["phases"])
        return read(key, start, stop, etag)

    store.read = note  # type: ignore[method-assign]
    assert rest is not None
    rest.bring()
    assert told[0] == [[53, 53], [0, 500]]


def test_a_rest_that_cannot_come_is_told_in_one_line(tmp_path: Path, store: FolderStore) -> None:
    fill(store, SIZES, PHASES)
    rest = begin(store, tmp_path)
    failing(store, NoPermission("not for you"))
    assert rest is not None
    with pytest.raises(NoPermission):
        rest.bring()
    with pytest.raises(TrainerError, match=r"large/one\.bin will not come: not for you"):
        arrival.wait_for(tmp_path / "data/set", ["large/one.bin"])


def test_a_rest_whose_s3_is_away_for_a_while_comes_after_all(tmp_path: Path, store: FolderStore) -> None:
    bodies = fill(store, SIZES, PHASES)
    rest = begin(store, tmp_path)
    assert rest is not None
    store.failures = 6
    rest.bring()
    assert here(tmp_path) == bodies


def test_a_rest_whose_s3_stays_away_is_given_up(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PATIENCE", 0.05)
    fill(store, SIZES, PHASES)
    rest = begin(store, tmp_path)
    failing(store, Unreachable("S3 is away"))
    assert rest is not None
    with pytest.raises(Unreachable):
        rest.bring()
    with pytest.raises(TrainerError, match="will not come: S3 is away"):
        arrival.wait_for(tmp_path / "data/set", ["large/one.bin"])


def test_who_waits_sees_that_what_brings_it_is_dead(tmp_path: Path) -> None:
    file = tmp_path / ".arriving"
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        file.write_text("a.bin\n")
        assert arrival.on_their_way(tmp_path, ["a.bin"]) == ["a.bin"]
    with pytest.raises(TrainerError, match=r"a\.bin will not come: what brought the data set here is gone"):
        arrival.wait_for(tmp_path, ["a.bin"])
    assert arrival.wait_for(tmp_path, ["other.bin"]) == 0.0, "what nobody announced is not waited for"
