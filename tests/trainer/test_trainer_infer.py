"""The inference track: every validation image once, alone, by the network a training left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.zygote import ROOT, Zygote, logs, progress
from trainer import cli, latency, schedule
from trainer.recipes.imagenet18_sandbox import SIXTEEN


@pytest.fixture(scope="module")
def trained(zygote: Zygote, stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training by one rank."""
    folder = tmp_path_factory.mktemp("trained")
    command = ("imagenet18", "--data", str(stripes), "--scale", "sandbox", "--epochs", "2")
    assert zygote.train(folder, 1, *command) == [0], logs(folder)
    return folder


def command(trained: Path, data: Path, *more: str) -> list[str]:
    folder = str(trained / "0" / "checkpoints")
    return ["infer", "imagenet18", "--scale", "sandbox", "--data", str(data), "--checkpoint", folder, *more]


def test_it_prints_the_entry_as_the_benchmark_wants_it(trained: Path, stripes: Path) -> None:
    told = ("--cost-per-hour", "3.6", "--author", "A. Person", "--email", "a@example.org", "--hardware", "a box")
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *command(trained, stripes, "--json", *told)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "ORCH_DEVICE": "cpu"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    entry = json.loads(done.stdout)
    assert {"version", "author", "authorEmail", "framework", "model", "hardware", "timestamp"} <= set(entry)
    assert (entry["author"], entry["hardware"], entry["model"]) == ("A. Person", "a box", "resnet-sandbox")
    assert entry["misc"]["images"] == 103
    assert 0 < entry["misc"]["networkLatency"] < entry["latency"]
    assert entry["cost"] == pytest.approx(entry["latency"] / 1000 / 3600 * 3.6, rel=1e-3)


def test_alone_images_are_classified_as_they_are_in_batches(
    trained: Path, stripes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Square images: in the second epoch, where the training ended, all are cropped alike however they are batched."""
    monkeypatch.setenv("ORCH_DEVICE", "cpu")
    second = schedule.at(SIXTEEN, 1)
    monkeypatch.setattr(schedule, "at", lambda recipe, epoch: second)
    assert cli.main(command(trained, stripes, "--json")) == 0
    entry = json.loads(capsys.readouterr().out)
    last = progress(trained, "eval")[-1]
    assert (entry["top1Accuracy"], entry["top5Accuracy"]) == (last["top1"], last["top5"])
    assert entry["cost"] is None


def test_a_person_reads_one_line(
    trained: Path, stripes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_DEVICE", "cpu")
    monkeypatch.setattr(latency, "SAY_EVERY", 0.0)
    assert cli.main(command(trained, stripes, "--images", "7")) == 0
    out, err = capsys.readouterr()
    assert out.startswith("7 images one at a time: ") and out.count("\n") == 1
    assert "3 of 7 images" in err


def test_a_folder_without_a_network_of_the_recipe_is_refused(
    trained: Path, stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_DEVICE", "cpu")
    other = command(trained, stripes)
    other[1] = "cifar10-preact18"
    assert cli.main(other) == 2
    said = capsys.readouterr().err
    assert "is not of preact-sandbox with 10 classes" in said and "it is of imagenet18, sandbox scale" in said
    assert cli.main(command(tmp_path, stripes)) == 2
    assert f"no checkpoint in {tmp_path / '0' / 'checkpoints'}" in capsys.readouterr().err
    broken = tmp_path / "0" / "checkpoints" / "5"
    broken.mkdir(parents=True)
    (broken / "state.pt").write_bytes(b"torn")
    assert cli.main(command(tmp_path, stripes)) == 2
    assert "checkpoint 5 cannot be read" in capsys.readouterr().err
