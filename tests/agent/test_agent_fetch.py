"""Staging goes on where it was killed, believes only digests, and never shows a file that is not whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.agent import fetch, part
from orchestrator.agent.config import DataSource
from orchestrator.agent.fetch import Corrupt, Fetching
from orchestrator.agent.known import Known
from orchestrator.agent.listing import find_items
from orchestrator.agent.meter import Meter
from orchestrator.agent.spans import Spans
from orchestrator.agent.stage import stage
from orchestrator.errors import BadInput, OrchError, PreconditionFailed, Unreachable
from tests.agent.agent_world import FolderStore, node_config

SOURCE = DataSource.from_json({"name": "set", "source": "s3://sets/set", "mount": "set"})


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "s3")


@pytest.fixture(autouse=True)
def _small_and_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(fetch, "RANGE", 64)
    monkeypatch.setattr(part, "NOTED", 8)
    monkeypatch.setattr(part, "KEPT_FROM", 100)


def fill(store: FolderStore, sizes: dict[str, int], phases: dict[str, int] | None = None) -> dict[str, bytes]:
    """Put a data set with a manifest into the store and return its files."""
    rng = random.Random(7)  # noqa: S311 - bytes to look at
    bodies = {name: rng.randbytes(size) for name, size in sizes.items()}
    for name, body in bodies.items():
        store.put(f"set/{name}", body)
    write_manifest(store, bodies, phases or {})
    return bodies


def write_manifest(store: FolderStore, bodies: dict[str, bytes], phases: dict[str, int]) -> None:
    files = [
        {"path": name, "size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "phase": phases.get(name, 0)}
        for name, body in bodies.items()
    ]
    store.put("set/MANIFEST.json", json.dumps({"files": files}).encode())


def run(store: FolderStore, home: Path) -> None:
    rest = stage(node_config(home, data=(SOURCE,)), lambda *_: store)
    if rest is not None:
        rest.bring()


def here(home: Path) -> dict[str, bytes]:
    folder = home / "data/set"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def counting(store: FolderStore, limit: int = 10**9) -> SimpleNamespace:
    """Count the bytes read; after `limit` of them every read breaks off, as for a process that is killed."""
    seen = SimpleNamespace(bytes=0, limit=limit)
    read = store.read

    def count(key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        for piece in read(key, start, stop, etag):
            if seen.bytes >= seen.limit:
                raise PreconditionFailed("killed")
            seen.bytes += len(piece)
            yield piece

    store.read = count  # type: ignore[method-assign]
    return seen


def test_a_staging_that_was_killed_moves_only_the_rest(tmp_path: Path, store: FolderStore) -> None:
    bodies = fill(store, {"a.bin": 6000, "b/c.bin": 3000, "tiny": 5})
    seen = counting(store, limit=5000)
    with pytest.raises(PreconditionFailed):
        run(store, tmp_path)
    assert "a.bin" not in here(tmp_path), "nothing has its name before it is whole"
    seen.limit = 10**9
    before, seen.bytes = seen.bytes, 0
    run(store, tmp_path)
    assert here(tmp_path) == bodies
    # What was written and not yet noted down is fetched again: less than a note's worth for each connection.
    assert 0 < seen.bytes <= 9005 - before + fetch.CONNECTIONS * (8 + 3) + 5
    told = json.loads(node_config(tmp_path).staging_file.read_text())
    assert (told["staged"], told["to_stage"]) == (9005, 9005)


def test_what_is_left_of_another_version_of_an_object_is_not_gone_on_with(tmp_path: Path, store: FolderStore) -> None:
    fill(store, {"a.bin": 6000})
    counting(store, limit=3000)
    with pytest.raises(PreconditionFailed):
        run(store, tmp_path)
    store = FolderStore(tmp_path / "s3")
    store.put("set/a.bin", b"n" * 6000)
    write_manifest(store, {"a.bin": b"n" * 6000}, {})
    seen = counting(store)
    run(store, tmp_path)
    assert here(tmp_path) == {"a.bin": b"n" * 6000}
    assert seen.bytes == 6000


def test_bytes_that_are_not_what_was_noted_are_found_and_fetched_again(tmp_path: Path, store: FolderStore) -> None:
    bodies = fill(store, {"a.bin": 6000})
    seen = counting(store, limit=4000)
    with pytest.raises(PreconditionFailed):
        run(store, tmp_path)
    seen.limit = 10**9
    unfinished = tmp_path / "data/set/.a.bin.part"
    with unfinished.open("r+b") as file:
        file.write(b"lost in a crash of the machine")
    run(store, tmp_path)
    assert here(tmp_path) == bodies


def test_a_damaged_object_is_fetched_once_more_then_named_and_refused(tmp_path: Path, store: FolderStore) -> None:
    bodies = fill(store, {"bad.bin": 500})
    store.put("set/bad.bin", bodies["bad.bin"][:-1] + b"?")
    seen = counting(store)
    with pytest.raises(Corrupt, match=r"set/bad\.bin is damaged: its sha256 is [0-9a-f]{64}, by the manifest"):
        run(store, tmp_path)
    assert seen.bytes == 1000
    assert "bad.bin" not in here(tmp_path)


def test_all_damaged_objects_under_way_are_named_and_no_other_is_begun(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "CONNECTIONS", 2)
    bodies = fill(store, {"a": 50, "b": 50, **{f"c{number}": 50 for number in range(20)}})
    for name in "ab":
        store.put(f"set/{name}", bodies[name][::-1])
    seen, begun, read = counting(store), {name: threading.Event() for name in "ab"}, store.read

    def together(key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        begun[key[-1]].set()
        assert all(event.wait(60) for event in begun.values())
        return read(key, start, stop, etag)

    monkeypatch.setattr(store, "read", together)
    with pytest.raises(Corrupt, match=r"^2 objects are damaged: set/a, set/b$") as caught:
        run(store, tmp_path)
    assert [line.partition(" is ")[0] for line in caught.value.details] == ["set/a: its sha256", "set/b: its sha256"]
    assert (seen.bytes, here(tmp_path)) == (4 * 50, {})


def test_after_a_damaged_object_a_large_one_under_way_is_not_fetched_to_its_end(
    tmp_path: Path, store: FolderStore
) -> None:
    bodies = fill(store, {"big": 6400, "cut": 50, "next": 50})
    store.put("set/cut", bodies["cut"][::-1])
    items = find_items(store, SOURCE, tmp_path / "data")
    fetching = Fetching(items, Meter(tmp_path / "told", {0: 6500}, print), print, Known(None), name_all=False)
    taken = fetching._take()  # by another thread
    assert taken is not None
    assert taken[0].item.key == "set/big"
    fetching.work()
    assert [key for key, _ in fetching.damaged] == ["set/cut"]
    assert len(taken[0].spans) == 99
    fetching.close()


def test_objects_that_are_missing_or_cut_are_all_named_before_anything_is_fetched(
    tmp_path: Path, store: FolderStore
) -> None:
    fill(store, {"a": 5, "b": 5, "c": 5})
    (store.folder / "set/a").unlink()
    store.put("set/b", b"1234")
    with pytest.raises(Corrupt, match="a is missing, b has 4 bytes, by the manifest 5"):
        run(store, tmp_path)
    assert not (tmp_path / "data/set").exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"files": [{"path": "a"}]}', "cannot be read"),
        (b'{"files": 3}', "cannot be read"),
        (b'{"files": [{"path": "../a", "size": 1, "sha256": "00"}]}', "outside its folder"),
    ],
)
def test_a_manifest_that_is_damaged_is_refused(tmp_path: Path, store: FolderStore, body: bytes, says: str) -> None:
    store.put("set/MANIFEST.json", body)
    with pytest.raises(BadInput, match=says):
        run(store, tmp_path)


def test_another_file_of_that_name_is_a_file_like_any_other(tmp_path: Path, store: FolderStore) -> None:
    store.put("set/MANIFEST.json", b'{"name": "mine"}')
    store.put("set/a", b"12345")
    run(store, tmp_path)
    assert here(tmp_path) == {"MANIFEST.json": b'{"name": "mine"}', "a": b"12345"}


def test_files_found_right_once_are_not_digested_again_unless_they_changed(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = fill(store, {"a.bin": 500, "b.bin": 500})
    run(store, tmp_path)
    seen = counting(store)
    digested: list[str] = []

    def noted(path: Path) -> str:
        digested.append(path.name)
        return ""

    monkeypatch.setattr(fetch, "sha256_of", noted)
    run(store, tmp_path)
    assert (seen.bytes, digested) == (0, [])
    changed = tmp_path / "data/set/a.bin"
    changed.write_bytes(bodies["b.bin"])
    os.utime(changed, (1, 1))
    run(store, tmp_path)
    assert (seen.bytes, digested) == (500, ["a.bin"])
    assert here(tmp_path) == bodies


def test_what_does_not_fit_is_refused_before_anything_is_fetched(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, {"a.bin": 500})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=499))
    with pytest.raises(OrchError, match=r"needs 500 B more, and .*/data has room for 499 B"):
        run(store, tmp_path)
    assert not (tmp_path / "data/set").exists()


def test_a_connection_that_breaks_goes_on_where_it_was(tmp_path: Path, store: FolderStore) -> None:
    bodies = fill(store, {"a.bin": 64})
    starts: list[int] = []
    read = store.read

    def breaking(key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        starts.append(start)
        yield from read(key, start, min(stop, start + 30), etag)
        if start < 40:
            raise Unreachable("the connection broke")

    store.read = breaking  # type: ignore[method-assign]
    run(store, tmp_path)
    assert (here(tmp_path), starts) == (bodies, [0, 30, 60])


def test_phases_come_in_their_order(tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "CONNECTIONS", 1)
    fill(store, {"a": 500, "b": 200, "c": 300}, {"a": 2, "c": 1})
    order: list[str] = []
    read = store.read

    def noted(key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        order.append(key)
        return read(key, start, stop, etag)

    store.read = noted  # type: ignore[method-assign]
    run(store, tmp_path)
    assert list(dict.fromkeys(order)) == ["set/b", "set/c", "set/a"]
    told = json.loads(node_config(tmp_path).staging_file.read_text())
    assert told["phases"] == [[200, 200], [300, 300], [500, 500]]


def test_spans_are_what_a_set_of_bytes_is() -> None:
    rng = random.Random(3)  # noqa: S311 - cases
    for _ in range(300):
        spans, bytes_, size = Spans(), set(), rng.randint(1, 40)
        for _ in range(rng.randint(0, 8)):
            start = rng.randint(0, size)
            stop = rng.randint(0, size)
            spans.add(start, stop)
            bytes_ |= set(range(start, stop))
        assert spans.count() == len(bytes_)
        most = rng.randint(1, 10)
        gaps = list(spans.gaps(size, most))
        missing = [byte for start, stop in gaps for byte in range(start, stop)]
        assert missing == sorted(set(range(size)) - bytes_)
        assert all(0 < stop - start <= most for start, stop in gaps)
        at = rng.randint(0, size)
        end = at
        while end in bytes_:
            end += 1
        assert spans.until(at) == end
