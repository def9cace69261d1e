"""TensorBoard and W&B get what the progress file says, and nothing they do reaches the training."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import pytest

from tests.trainer.leader import RUN, report, reporter
from tests.trainer.zygote import ROOT, Zygote, logs, progress
from trainer import contract, sinks
from trainer.sinks import TENSORBOARD, WANDB
from trainer.sinks.follower import figures

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Points = dict[str, list[tuple[int, float]]]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test speaks to W&B; a busy machine is no reason to give a sink up."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(sinks, "PATIENCE", 120.0)


def events(folder: Path) -> Points:
    """Return (step, value) of every scalar of the event files in `folder`."""
    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def leader(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a rank 0 and return it once its steps are reported; its stdout ends when nothing of it is left."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "trainer" / "leader.py"), str(folder), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == b"reported\n":
            return process
    raise AssertionError(f"it ended with {process.wait()}")


def test_figures_of_steps_and_evaluations_are_in_event_files(tmp_path: Path) -> None:
    speaker = reporter(tmp_path)
    report(speaker, 0, 4)
    speaker.finished(4, {})
    found = events(tmp_path / "logs" / "tensorboard")
    assert found["train/loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(0.33333)), (4, 0.25)]
    assert found["validation/top5"] == [(4, 90.0)]
    assert found["validation/loss"] == [(4, 1.5)]
    assert {"train/lr", "train/images_per_second", "train/image_size", "validation/seconds"} <= set(found)


def test_steps_that_are_done_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    first = reporter(tmp_path)
    report(first, 0, 4)
    first.stopped(4)
    again = reporter(tmp_path)
    report(again, 2, 6, gain=2.0)
    again.finished(6, {})
    found = events(tmp_path / "logs" / "tensorboard")
    assert found["train/loss"] == [
        (1, 1.0), (2, 0.5), (3, pytest.approx(0.66667)), (4, 0.5), (5, pytest.approx(0.4)), (6, pytest.approx(0.33333)),
    ]  # fmt: skip
    assert found["validation/top1"] == [(6, 50.0)]


@pytest.mark.parametrize("end", ["killed", "failed"])
def test_when_rank_0_goes_away_its_last_figures_are_kept_and_nothing_is_left(tmp_path: Path, end: str) -> None:
    process = leader(tmp_path, "0", "3", end)
    if end == "killed":
        process.kill()
    process.communicate(timeout=60)  # the follower holds the other end of the pipe until it ends
    assert [step for step, _ in events(tmp_path / "logs" / "tensorboard")["train/loss"]] == [1, 2, 3]


def test_a_signal_meant_for_the_training_does_not_cost_its_last_figures(tmp_path: Path) -> None:
    process = leader(tmp_path, "0", "3", "stopped")
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert [step for step, _ in events(tmp_path / "logs" / "tensorboard")["train/loss"]] == [1, 2, 3, 4]


def test_a_sink_that_fails_is_one_line_and_the_training_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    speaker = reporter(tmp_path)
    report(speaker, 0, 4)
    speaker.finished(4, {})
    said = [line for line in capfd.readouterr().out.splitlines() if "is off" in line]
    assert len(said) == 1
    assert said[0].startswith("tensorboard is off, the training goes on without it: ")
    assert json.loads((tmp_path / "progress.jsonl").read_text().splitlines()[-1])["event"] == "finished"


def test_a_sink_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "PATIENCE", 0.0)
    (tmp_path / "progress.jsonl").write_text('{"event": "start", "time": 1, "step": 0}\n')
    said: list[str] = []
    hanging = sinks.Sinks(said.append)
    job = {"progress": str(tmp_path / "progress.jsonl"), "offset": 0, "logs": str(tmp_path), "parent": os.getpid()}
    hanging.start([TENSORBOARD], job)
    hanging.close()
    assert len(said) == 1
    assert "tensorboard was not done" in said[0]


def test_only_what_is_asked_for_and_installed_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    bare, kept = contract.read({}), contract.read({"ORCH_LOG_DIR": "/logs", "ORCH_RUN_ID": RUN})
    assert (kept.logs, kept.run) == (Path("/logs"), RUN)
    assert sinks.wanted(bare, {}) == []
    assert sinks.wanted(kept, {}) == [TENSORBOARD]
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    assert sinks.wanted(kept, {"WANDB_API_KEY": "x"}) == []
    monkeypatch.setattr(sinks, "find_spec", lambda name: name)
    assert sinks.wanted(bare, {"WANDB_API_KEY": "x"}) == [WANDB]


def test_what_a_line_measured() -> None:
    step = {"time": 1.0, "step": 5, "epoch": 0.5, "loss": 1.25, "lr": None, "note": "x"}
    assert figures(step) == {"train/epoch": 0.5, "train/loss": 1.25}
    assert figures(step | {"event": "eval", "top1": 50, "val_loss": 2.0}) == {
        "validation/top1": 50.0,
        "validation/loss": 2.0,
    }
    assert figures(step | {"event": "checkpoint"}) == {}


def test_a_training_writes_event_files_on_rank_0_alone(zygote: Zygote, stripes: Path, tmp_path: Path) -> None:
    command = ("imagenet18", "--data", str(stripes), "--scale", "sandbox", "--log-every", "1", "--epochs", "1")
    codes = zygote.train(tmp_path, 2, *command, env=lambda rank: {"ORCH_LOG_DIR": str(tmp_path / str(rank) / "logs")})
    assert codes == [0, 0], logs(tmp_path)
    found = events(tmp_path / "0" / "logs" / "tensorboard")
    lines = [line for line in progress(tmp_path) if "event" not in line]
    assert [step for step, _ in found["train/loss"]] == [line["step"] for line in lines]
    assert [value for _, value in found["train/loss"]] == pytest.approx([line["loss"] for line in lines])
    assert [value for _, value in found["validation/top1"]] == pytest.approx(
        [line["top1"] for line in progress(tmp_path, "eval")]
    )
    assert not (tmp_path / "1" / "logs").exists()


@pytest.mark.long
def test_wandb_continues_one_run_through_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package, offline: what it would send is in its files."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for first, last in ((0, 3), (3, 5)):
        speaker = reporter(tmp_path)
        report(speaker, first, last)
        speaker.finished(last, {})
    lives = sorted((tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in lives] == [f"run-{RUN}.wandb"] * 2
    one, two = (list(records(file)) for file in lives)
    assert history(one)["train/loss"] == [(1, 1.0), (2, 0.5), (3, 0.33333)]
    assert history(two)["train/loss"] == [(4, 0.25), (5, 0.2)]
    assert history(two)["validation/top1"] == [(5, 50.0)]
    (about,) = (record.run for record in one if record.WhichOneof("record_type") == "run")
    assert (about.project, about.run_id) == ("imagenet18", RUN)
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert (config["scale"], config["epochs"], config["samples"]) == ("sandbox", 6, 5)


def history(found: list[Any]) -> Points:
    points: Points = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for name in items.keys() - {"_step"}:
                points.setdefault(name, []).append((items["_step"], items[name]))
    return points


def records(file: Path) -> Iterator[Any]:
    """Yield the records of a `.wandb` file: a LevelDB log (blocks of 32 KiB, 7-byte headers) after 7 other bytes."""
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    with file.open("rb") as stream:
        stream.seek(7)
        for body in _chunks(stream):
            record = messages.Record()
            record.ParseFromString(body)
            yield record


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    whole = b""
    while True:
        room = 32768 - stream.tell() % 32768
        if room < 7:
            stream.read(room)
        header = stream.read(7)
        if len(header) < 7:
            return
        _, length, kind = struct.unpack("<IHB", header)
        whole += stream.read(length)
        if kind in {1, 4}:  # the whole record, or the last part of one
            yield whole
            whole = b""
