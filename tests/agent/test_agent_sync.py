"""Logs, metrics and checkpoints reach S3, in the right order and whatever S3 does meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.agent import logs
from orchestrator.agent.checkpoints import Checkpoints, local_steps, stored_steps
from orchestrator.agent.logs import LogFiles, SegmentedLog
from orchestrator.agent.metrics import Metrics
from orchestrator.agent.redact import Redactor
from orchestrator.agent.sync import Sync, Worker
from orchestrator.core.ids import Keys
from orchestrator.core.manifest import Manifest
from orchestrator.errors import Unreachable
from tests.agent.agent_world import RUN, FolderStore, json_lines, node_config

KEYS = Keys(RUN)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "s3")


def quiet(_: str) -> None:
    return


def segmented(path: Path, *secrets: str) -> SegmentedLog:
    return SegmentedLog(path, lambda index: f"log/{index:04d}", Redactor(secrets))


def test_only_the_growing_segment_is_sent_again_and_all_together_are_the_log(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SEGMENT", 100)
    monkeypatch.setattr(logs, "CHUNK", 33)
    path = tmp_path / "run.log"
    log = segmented(path)
    assert log.sync(store, 0, final=False)
    text = b"".join(b"line %04d\n" % n for n in range(26))
    path.write_bytes(text[:115])
    assert log.sync(store, 0, final=False)
    assert store.writes == ["log/0000", "log/0001"]
    path.write_bytes(text)
    log.sync(store, 100, final=False)
    assert store.writes[2:] == ["log/0001", "log/0002"]
    segments = [store.get(key) for key in store.keys("log/")]
    assert b"".join(segments) == text
    assert all(len(segment) <= 100 and segment.endswith(b"\n") for segment in segments)


def test_a_log_without_line_ends_is_cut_all_the_same(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SEGMENT", 100)
    (tmp_path / "run.log").write_bytes(b"x" * 250)
    segmented(tmp_path / "run.log").sync(store, 0, final=True)
    assert [len(store.get(key)) for key in store.keys("log/")] == [100, 100, 50]


def test_a_log_is_not_sent_more_often_than_is_due_but_at_the_end_at_once(tmp_path: Path, store: FolderStore) -> None:
    path = tmp_path / "run.log"
    log = segmented(path)
    path.write_bytes(b"one\n")
    assert log.sync(store, 0, final=False)
    path.write_bytes(b"one\ntwo\n")
    assert not log.sync(store, 1, final=False)
    assert log.sync(store, 1, final=True)
    assert log.sync(store, 99, final=False)
    assert store.writes == ["log/0000", "log/0000"]


def test_a_secret_never_reaches_s3_also_when_it_is_written_in_two_pieces(tmp_path: Path, store: FolderStore) -> None:
    path = tmp_path / "run.log"
    log = segmented(path, "hunter2hunter2")
    path.write_bytes(b"password: hunter2")
    log.sync(store, 0, final=False)
    assert store.get("log/0000") == b"password: "
    path.write_bytes(b"password: hunter2hunter2\nhunter")
    log.sync(store, 100, final=True)
    assert store.get("log/0000") == b"password: ***\nhunter"


def test_a_log_survives_an_absence_of_s3_without_growing_in_memory(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SEGMENT", 100)
    monkeypatch.setattr(logs, "CHUNK", 100)
    text = b"".join(b"line %04d\n" % n for n in range(100))
    (tmp_path / "run.log").write_bytes(text)
    log = segmented(tmp_path / "run.log")
    store.failures = 7
    for _ in range(7):
        with pytest.raises(Unreachable):
            log.sync(store, 0, final=False)
        assert len(log._segment) <= 200
    assert log.sync(store, 0, final=True)
    assert b"".join(store.get(key) for key in store.keys("log/")) == text


def test_every_other_log_file_is_sent_when_it_changed_links_and_pipes_are_not(
    tmp_path: Path, store: FolderStore
) -> None:
    folder = tmp_path / "logs"
    (folder / "events").mkdir(parents=True)
    (folder / "run.log").write_text("not here")
    (folder / "events" / "tb.1").write_bytes(b"\x00token\xff")
    (folder / "passwd").symlink_to("/etc/passwd")
    files = LogFiles(folder, folder / "run.log", lambda name: f"log/{name}", ("token",))
    assert files.sync(store, 0, final=False)
    assert store.keys() == ["log/events/tb.1"]
    assert store.get("log/events/tb.1") == b"\x00***\xff"
    assert files.sync(store, 100, final=False)
    assert len(store.writes) == 1
    (folder / "events" / "tb.1").write_bytes(b"more")
    assert not files.sync(store, 101, final=False), "looked at every 15 s only"
    assert files.sync(store, 101, final=True)
    assert store.get("log/events/tb.1") == b"more"


def metrics(generation: int = 1, *secrets: str) -> Metrics:
    return Metrics(KEYS.metrics, generation, Redactor(secrets))


def test_metrics_of_later_generations_come_after_those_of_earlier_ones(store: FolderStore) -> None:
    first = metrics(1)
    first.add([{"step": 1}, {"step": 2}])
    first.sync(store, 0, final=True)
    second = metrics(2, "pass")
    second.add([{"step": 2, "note": "pass"}])
    second.sync(store, 0, final=True)
    assert json_lines(store.get(KEYS.metrics)) == [
        {"step": 1, "generation": 1},
        {"step": 2, "generation": 1},
        {"step": 2, "generation": 2, "note": "***"},
    ]


def test_an_agent_that_begins_again_does_not_repeat_its_lines(store: FolderStore) -> None:
    for _ in range(2):
        again = metrics(1)
        again.add([{"step": 1}])
        assert again.sync(store, 0, final=False)
    assert json_lines(store.get(KEYS.metrics)) == [{"step": 1, "generation": 1}]


def test_metrics_wait_for_s3_and_lose_nothing(store: FolderStore) -> None:
    one = metrics()
    one.add([{"step": 1}])
    store.failures = 2
    for _ in range(2):
        with pytest.raises(Unreachable):
            one.sync(store, 0, final=False)
    assert one.sync(store, 0, final=False)
    one.add([{"step": 2}])
    assert not one.sync(store, 1, final=False)
    assert one.sync(store, 5, final=False)
    assert [line["step"] for line in json_lines(store.get(KEYS.metrics))] == [1, 2]


def checkpoint(folder: Path, step: int, **files: bytes) -> None:
    fresh = folder / f".new-{step}"
    fresh.mkdir(parents=True)
    for name, body in (files or {"model.pt": b"weights %d" % step, "state": b""}).items():
        (fresh / name).write_bytes(body)
    fresh.rename(folder / str(step))


def test_the_data_of_a_checkpoint_goes_before_its_manifest(tmp_path: Path, store: FolderStore) -> None:
    folder = tmp_path / "checkpoints"
    checkpoint(folder, 10)
    (folder / "10" / "shards").mkdir()
    (folder / "10" / "shards" / "0").write_bytes(b"shard")
    saved = Checkpoints(folder, KEYS, quiet)
    assert saved.sync(store)
    assert store.writes[-1] == KEYS.manifest(10)
    assert set(store.writes) == {KEYS.checkpoint(10, n) for n in ("model.pt", "state", "shards/0", "MANIFEST.json")}
    manifest = Manifest.from_json(store.get(KEYS.manifest(10)))
    assert (manifest.step, [file.path for file in manifest.files]) == (10, ["model.pt", "shards/0", "state"])
    assert saved.newest == 10


def test_an_upload_that_breaks_off_leaves_no_manifest_and_is_done_again(tmp_path: Path, store: FolderStore) -> None:
    folder = tmp_path / "checkpoints"
    checkpoint(folder, 10)
    saved = Checkpoints(folder, KEYS, quiet)

    def break_off(key: str) -> None:
        if key.endswith("state"):
            raise Unreachable("gone")

    store.before_write = break_off
    with pytest.raises(Unreachable):
        saved.sync(store)
    assert stored_steps(store, KEYS) == set()
    assert saved.newest is None
    store.before_write = quiet
    assert saved.sync(store)
    assert stored_steps(store, KEYS) == {10}


def test_the_newest_checkpoint_is_uploaded_first_and_none_twice(tmp_path: Path, store: FolderStore) -> None:
    folder = tmp_path / "checkpoints"
    for step in (5, 20, 100):
        checkpoint(folder, step)
    saved = Checkpoints(folder, KEYS, quiet)
    assert saved.sync(store)
    assert [key for key in store.writes if key.endswith("json")] == [KEYS.manifest(s) for s in (100, 20, 5)]
    count = len(store.writes)
    assert saved.sync(store)
    again = Checkpoints(folder, KEYS, quiet)
    assert again.sync(store)
    assert len(store.writes) == count
    assert again.newest == 100, "what was restored counts"


def test_folders_that_are_no_checkpoints_are_left_alone(tmp_path: Path, store: FolderStore) -> None:
    folder = tmp_path / "checkpoints"
    for name in ("tmp", ".new-3", "007", "-1", "5", "٣"):
        (folder / name).mkdir(parents=True)
        if name != "5":
            (folder / name / "file").write_bytes(b"x")
    (folder / "8").write_bytes(b"a file")
    assert local_steps(folder) == set(), "5 is empty, 8 no folder"
    assert Checkpoints(folder, KEYS, quiet).sync(store)
    assert store.writes == []


def test_a_checkpoint_that_the_training_deletes_meanwhile_is_given_up(tmp_path: Path, store: FolderStore) -> None:
    folder = tmp_path / "checkpoints"
    checkpoint(folder, 10)

    def vanish(_: str) -> None:
        for file in (folder / "10").iterdir():
            file.unlink()
        (folder / "10").rmdir()

    store.before_write = vanish
    assert Checkpoints(folder, KEYS, quiet).sync(store)
    assert stored_steps(store, KEYS) == set()


def test_steps_that_were_trained_again_replace_the_checkpoint_that_could_not_be_restored(
    tmp_path: Path, store: FolderStore
) -> None:
    store.put(KEYS.manifest(10), Manifest(10, ()).to_json())
    folder = tmp_path / "checkpoints"
    checkpoint(folder, 10, model=b"new")
    assert Checkpoints(folder, KEYS, quiet).sync(store)
    assert store.writes[-2:] == [KEYS.checkpoint(10, "model"), KEYS.manifest(10)]
    assert [file.path for file in Manifest.from_json(store.get(KEYS.manifest(10))).files] == ["model"]


def worked(
    rounds: list[bool], work: Callable[[bool], bool], until: Callable[[Worker], bool]
) -> tuple[Worker, list[str]]:
    said: list[str] = []
    reached = threading.Event()

    def round_(final: bool) -> bool:
        rounds.append(final)
        try:
            return work(final)
        finally:
            reached.set()

    worker = Worker("it", round_, said.append, every=0.01)
    worker.start()
    for _ in range(500):
        if until(worker):
            break
        reached.wait(0.02)
        reached.clear()
    assert until(worker)
    return worker, said


def test_a_worker_is_done_only_after_a_round_that_began_when_all_had_ended() -> None:
    rounds: list[bool] = []
    worker, _ = worked(rounds, lambda _: True, lambda _: len(rounds) > 3)
    assert not worker.done
    worker.finish()
    for _ in range(500):
        if worker.done:
            break
        threading.Event().wait(0.01)
    assert worker.done
    worker.close()
    assert rounds[-1] is True


def test_a_worker_survives_whatever_goes_wrong_and_tries_again() -> None:
    rounds: list[bool] = []

    def work(_: bool) -> bool:
        if len(rounds) < 4:
            raise RuntimeError("boom")
        return True

    worker, said = worked(rounds, work, lambda _: len(rounds) > 5)
    worker.close()
    assert len(said) == 3
    assert "RuntimeError: boom" in said[0]


def test_only_rank_0_writes_metrics_and_checkpoints(tmp_path: Path, store: FolderStore) -> None:
    for rank in (1, 0):
        config = node_config(tmp_path / f"home-{rank}", rank=rank)
        config.run_log.write_text(f"rank {rank}\n")
        checkpoint(config.checkpoint_folder, 3)
        sync = Sync(config, lambda: store, quiet)
        if sync.metrics is not None:
            sync.metrics.add([{"step": 1}])
        sync.finish()
        sync.start()
        for _ in range(500):
            if sync.done:
                break
            threading.Event().wait(0.01)
        assert sync.done
        sync.close()
        if rank == 1:
            assert store.keys() == [KEYS.log(1, "run.001.0000.log")]
    assert stored_steps(store, KEYS) == {3}
    assert json.loads(store.get(KEYS.metrics))["step"] == 1
    assert store.get(KEYS.log(0, "run.001.0000.log")) == b"rank 0\n"
