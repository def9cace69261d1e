"""Data and checkpoints come to the node whole, or the training does not begin with them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.agent import digest, fetch, staging
from orchestrator.agent.checkpoints import make_manifest
from orchestrator.agent.config import DataSource, NodeConfig
from orchestrator.agent.digest import matches_etag
from orchestrator.agent.fetch import Corrupt
from orchestrator.agent.restore import restore
from orchestrator.agent.stage import main, stage
from orchestrator.agent.staging import patiently
from orchestrator.core.beacon import STAGING_FAILED
from orchestrator.core.ids import Keys
from orchestrator.errors import BadInput, NotFound, OrchError, Unreachable
from tests.agent.agent_world import RUN, FolderStore, Found, node_config

KEYS = Keys(RUN)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "s3")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def source(value: str = "s3://sets/digits") -> DataSource:
    return DataSource.from_json({"name": "digits", "source": value, "mount": "sets/digits"})


def staged(store: FolderStore, home: Path, **changes: object) -> list[str]:
    """Stage and return which objects were fetched."""
    got: list[str] = []
    get = store.get
    store.get = lambda key: got.append(key) or get(key)  # type: ignore[method-assign, func-returns-value]
    try:
        stage(node_config(home, **{"data": (source(),), **changes}), lambda *_: store)
    finally:
        store.get = get  # type: ignore[method-assign]
    return sorted(got)


def test_every_object_under_the_prefix_comes_and_nothing_else(tmp_path: Path, store: FolderStore) -> None:
    for key in ("digits/train/0.bin", "digits/empty", "digits-two/x", "other"):
        store.put(key, b"" if key.endswith("empty") else key.encode())
    staged(store, tmp_path)
    folder = tmp_path / "data" / "sets" / "digits"
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"train/0.bin": b"digits/train/0.bin", "empty": b""}
    told = json.loads(node_config(tmp_path).staging_file.read_text())
    assert (told["staged"], told["to_stage"], told["phases"]) == (18, 18, [[18, 18]])


@pytest.mark.parametrize("value", ["s3://sets", "s3://sets/", "s3://sets/digits/"])
def test_a_source_is_a_folder_however_it_is_written(value: str) -> None:
    assert source(value).prefix in {"", "digits/"}
    assert source(value).bucket == "sets"


def test_what_is_there_already_is_not_fetched_again_but_what_differs_is(tmp_path: Path, store: FolderStore) -> None:
    for name in ("same", "longer", "other"):
        store.put(f"digits/{name}", b"right")
    folder = tmp_path / "data" / "sets" / "digits"
    folder.mkdir(parents=True)
    for name, body in (("same", b"right"), ("longer", b"right and more"), ("other", b"wrong")):
        (folder / name).write_bytes(body)
    assert staged(store, tmp_path) == ["digits/longer", "digits/other"]
    assert {path.read_bytes() for path in folder.iterdir()} == {b"right"}


def noting_reads(store: FolderStore) -> list[tuple[str, int, int]]:
    """Return a list that will hold key, start and stop of each read."""
    reads: list[tuple[str, int, int]] = []
    read = store.read

    def note(key: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
        reads.append((key, start, stop))
        return read(key, start, stop, etag)

    store.read = note  # type: ignore[method-assign]
    return reads


def test_large_objects_are_fetched_in_ranges(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RANGE", 4)
    reads = noting_reads(store)
    store.put("digits/small", b"abcd")
    store.put("digits/large", b"abcdefghij")
    staged(store, tmp_path)
    assert sorted(reads) == [
        ("digits/large", 0, 4),
        ("digits/large", 4, 8),
        ("digits/large", 8, 10),
        ("digits/small", 0, 4),
    ]
    assert (tmp_path / "data/sets/digits/large").read_bytes() == b"abcdefghij"


def corrupting(store: FolderStore, bodies: list[bytes]) -> None:
    """Let the next reads give these bodies instead."""
    get = store.get
    store.get = lambda key: bodies.pop(0) if bodies else get(key)  # type: ignore[method-assign]


def test_what_arrives_damaged_is_fetched_again(tmp_path: Path, store: FolderStore) -> None:
    store.put("digits/a", b"right")
    corrupting(store, [b"wrong", b"short"[:2]])
    stage(node_config(tmp_path, data=(source(),)), lambda *_: store)
    assert (tmp_path / "data/sets/digits/a").read_bytes() == b"right"
    assert json.loads(node_config(tmp_path).staging_file.read_text())["staged"] == 5


def test_what_could_not_be_had_and_what_to_do_are_lines_of_their_own(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put("digits/a", b"right")
    corrupting(store, [b"wrong", b"right"[::-1], b"other", b"noise"])
    config = node_config(tmp_path, data=(source(),))
    monkeypatch.setattr(NodeConfig, "load", lambda *_: config)
    monkeypatch.setattr("orchestrator.agent.stage.open_store", lambda *_: store)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["node.json"]) == 1
    *_, why, hint = capsys.readouterr().out.splitlines()
    assert why.startswith(f"orch: {STAGING_FAILED}digits/a did not arrive whole")
    assert hint.startswith("orch: hint: ")


def test_what_never_arrives_whole_is_not_there(tmp_path: Path, store: FolderStore) -> None:
    store.put("digits/a", b"right")
    corrupting(store, [b"wrong", b"right"[::-1], b"other", b"noise"])
    with pytest.raises(Corrupt, match="did not arrive whole"):
        stage(node_config(tmp_path, data=(source(),)), lambda *_: store)
    assert list((tmp_path / "data/sets/digits").iterdir()) == []


def test_an_entity_tag_that_is_no_digest_is_outvoted_by_two_equal_fetches(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("digits/a", b"right")
    monkeypatch.setattr(store, "list", lambda _: [Found("digits/a", 5, f'"{"0" * 32}"')])
    stage(node_config(tmp_path, data=(source(),)), lambda *_: store)
    assert (tmp_path / "data/sets/digits/a").read_bytes() == b"right"


def test_staging_waits_for_s3_and_fails_when_it_stays_away(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("digits/a", b"right")
    items = list(store.list("digits/"))
    monkeypatch.setattr(store, "list", lambda _: iter(items))
    store.failures = 3
    staged(store, tmp_path)
    (tmp_path / "data/sets/digits/a").unlink()
    store.failures = 99
    with pytest.raises(Unreachable):
        staged(store, tmp_path)


def test_a_listing_that_s3_does_not_answer_is_asked_again_for_a_while(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("digits/a", b"right")
    config = node_config(tmp_path, data=(source(),))
    monkeypatch.setattr(staging, "PAUSE", 0.01)
    store.failures = 1
    patiently(lambda: stage(config, lambda *_: store), print)
    assert (tmp_path / "data/sets/digits/a").read_bytes() == b"right"
    monkeypatch.setattr(staging, "PATIENCE", 0.05)
    store.failures = 10**9
    with pytest.raises(Unreachable):
        patiently(lambda: stage(config, lambda *_: store), print)


def test_an_empty_data_set_and_keys_that_climb_out_are_refused(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="nothing at s3://sets/digits/"):
        staged(store, tmp_path)
    three = tuple(replace(source(f"s3://sets/{name}"), name=name) for name in ("digits", "letters", "words"))
    store.put("letters/a", b"a")
    store.put("words/MANIFEST.json", json.dumps({"files": [{"path": "w", "size": 1, "sha256": "0" * 64}]}).encode())
    with pytest.raises(
        NotFound, match=r"nothing at s3://sets/digits/; s3://sets/words/ is not what its .* w is missing"
    ):
        staged(store, tmp_path, data=three)
    monkeypatch.setattr(store, "list", lambda _: [Found("digits/../../../x", 1, "")])
    with pytest.raises(BadInput, match="leave its folder"):
        staged(store, tmp_path)
    monkeypatch.setattr(store, "list", lambda _: [Found(f"digits/{name}", 1, "") for name in ("a", "a/b")])
    with pytest.raises(
        BadInput, match="data digits holds objects that no folder can: 'a' would be a file and a folder"
    ):
        staged(store, tmp_path)


def multipart_etag(body: bytes, part: int) -> str:
    parts = [hashlib.md5(body[i : i + part]).digest() for i in range(0, len(body), part)]  # noqa: S324
    return f'"{hashlib.md5(b"".join(parts)).hexdigest()}-{len(parts)}"'  # noqa: S324


def test_tags_of_uploads_in_parts_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "MIB", 4)
    monkeypatch.setattr(digest, "PART_SIZES", (5, 7))
    path = tmp_path / "file"
    path.write_bytes(b"0123456789abcdef")
    body = path.read_bytes()
    assert matches_etag(path, multipart_etag(body, 7)) is True
    assert matches_etag(path, multipart_etag(body, 8)) is True, "parts of equal size"
    assert matches_etag(path, multipart_etag(body, 3)) is None
    assert matches_etag(path, multipart_etag(body[::-1], 7)) is None
    assert matches_etag(path, '"abc-x"') is None
    assert matches_etag(path, "") is None


def save(store: FolderStore, step: int, folder: Path) -> None:
    """Put a checkpoint into S3."""
    made = folder / str(step)
    made.mkdir(parents=True)
    (made / "model").write_bytes(b"weights %d" % step)
    (made / "optimizer").write_bytes(b"momentum")
    for name in ("model", "optimizer"):
        store.upload_file(made / name, KEYS.checkpoint(step, name))
    store.put(KEYS.manifest(step), make_manifest(made, step).to_json())


@pytest.fixture
def saved(tmp_path: Path, store: FolderStore) -> Path:
    for step in (9, 100, 20):
        save(store, step, tmp_path / "made")
    target = tmp_path / "checkpoints"
    target.mkdir()
    return target


def restored(store: FolderStore, folder: Path, newest: int = 1000, *, alone: bool = True) -> int | None:
    return restore(store, KEYS, folder, newest, lambda _: None, alone=alone)


def test_the_newest_checkpoint_is_restored_by_number_not_by_name(saved: Path, store: FolderStore) -> None:
    assert restored(store, saved) == 100
    assert sorted(path.name for path in saved.iterdir()) == ["100"]
    assert (saved / "100" / "model").read_bytes() == b"weights 100"


def test_the_scheduler_says_how_new_it_may_be(saved: Path, store: FolderStore) -> None:
    assert restored(store, saved, newest=99) == 20
    assert restored(store, saved, newest=3) is None


@pytest.mark.parametrize("name", ["model", "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["missing", "flipped", "shorter"])
def test_a_damaged_checkpoint_counts_as_none(saved: Path, store: FolderStore, name: str, damage: str) -> None:
    path = store.folder / KEYS.checkpoint(100, name)
    body = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(bytes([body[0] ^ 1]) + body[1:] if damage == "flipped" else body[:-1])
    assert restored(store, saved) == 20
    assert sorted(path.name for path in saved.iterdir() if not path.name.startswith(".")) == ["20"]


def test_a_manifest_of_another_step_or_of_nothing_is_not_believed(saved: Path, store: FolderStore) -> None:
    store.put(KEYS.manifest(100), store.get(KEYS.manifest(20)))
    store.put(KEYS.manifest(20), json.dumps({"step": 20, "files": []}).encode())
    assert restored(store, saved) == 9


def test_a_checkpoint_that_is_here_and_right_is_not_fetched(saved: Path, store: FolderStore) -> None:
    restored(store, saved)
    store.download_file = lambda *_: pytest.fail("fetched")  # type: ignore[method-assign]
    assert restored(store, saved) == 100


def test_a_node_of_a_gang_does_not_start_from_a_copy_that_the_others_cannot_have(
    saved: Path, store: FolderStore
) -> None:
    restored(store, saved)
    (store.folder / KEYS.checkpoint(100, "model")).write_bytes(b"damaged in S3")
    assert restored(store, saved, alone=False) == 20
    assert (saved / "100" / "model").read_bytes() == b"weights 100"
    assert restored(store, saved) == 100, "whoever trains alone may"


def test_no_node_keeps_a_checkpoint_that_the_others_do_not_start_from(
    saved: Path, store: FolderStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = node_config(tmp_path, generation=2, restore_step=20, trained=True)
    for step in (9, 20, 150):
        (config.checkpoint_folder / str(step)).mkdir(parents=True, exist_ok=True)
        (config.checkpoint_folder / str(step) / "model").write_bytes(b"mine alone")
    stage(config, lambda *_: store)
    assert sorted(path.name for path in config.checkpoint_folder.iterdir()) == ["20", "9"]
    assert (config.checkpoint_folder / "20" / "model").read_bytes() == b"weights 20"
    begun, fresh = replace(config, restore_step=None), replace(config, restore_step=None, trained=False)
    stage(begun, lambda *_: pytest.fail("nothing to fetch"))
    assert list(config.checkpoint_folder.iterdir()) == [], "nobody has a checkpoint, so all begin anew"
    assert "begins anew" in capsys.readouterr().out
    stage(fresh, lambda *_: pytest.fail("nothing to fetch"))
    assert capsys.readouterr().out == "", "there never was a training, so nothing begins anew"


def test_an_absence_of_s3_is_not_taken_for_damage(saved: Path, store: FolderStore) -> None:
    def away(*_: object) -> None:
        raise Unreachable("S3 is away")

    store.download_file = away  # type: ignore[method-assign, assignment]
    with pytest.raises(OrchError, match="away"):
        restored(store, saved)
