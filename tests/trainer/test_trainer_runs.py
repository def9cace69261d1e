"""Whole trainings of a few forked ranks: learning, stopping, resuming, evaluating, failing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.zygote import Zygote, logs, progress
from trainer import checkpoint, schedule
from trainer.data import order, pack
from trainer.errors import STOPPED
from trainer.recipes.imagenet18_sandbox import SIXTEEN

TRAIN = 400
STEPS = schedule.total_steps(SIXTEEN, TRAIN, SIXTEEN.epochs)


def command(data: Path, *more: str) -> list[str]:
    return ["imagenet18", "--data", str(data), "--scale", "sandbox", "--log-every", "1", *more]


def newest(folder: Path) -> checkpoint.Loaded:
    def fail(step: int, error: Exception) -> None:
        raise AssertionError(f"{step}: {error!r}")

    loaded = checkpoint.newest(folder / "0" / "checkpoints", fail)
    assert loaded is not None, logs(folder)
    return loaded


def assert_same(one: Any, other: Any) -> None:
    """Every tensor of both checkpoints agrees in every bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        assert one == other


@pytest.fixture(scope="module")
def whole(zygote: Zygote, stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training by three ranks that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert zygote.train(folder, 3, *command(stripes)) == [0, 0, 0], logs(folder)
    return folder


def test_a_training_goes_through_all_phases_and_leaves_lines_and_checkpoints(whole: Path) -> None:
    lines = progress(whole)
    steps = [line for line in lines if "event" not in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    plan = list(order.remaining(SIXTEEN, TRAIN, 0, epoch=0, seen=0, epochs=SIXTEEN.epochs))
    for line, batch in zip(steps, plan, strict=True):
        point = schedule.at(SIXTEEN, schedule.progress(SIXTEEN, batch.epoch, batch.seen, TRAIN))
        assert (line["image_size"], line["batch"], line["lr"]) == (point.size, point.batch, round(point.lr, 6))
        assert line["images_per_second"] > 0
    assert lines[0]["event"] == "start" and lines[0]["steps"] == STEPS and lines[0]["world_size"] == 3
    assert "sandbox scale" in lines[0]["run"]["note"]
    assert (lines[-1]["event"], lines[-1]["step"]) == ("finished", STEPS)
    assert [line["epoch"] for line in progress(whole, "eval")] == [1, 2, 3, 4, 5, 6]
    assert checkpoint.steps(whole / "0" / "checkpoints")[0] == STEPS
    assert sorted(p.name for p in (whole / "1").iterdir()) == ["log"]


def test_a_person_at_any_node_sees_that_node_train(whole: Path) -> None:
    assert "[rank 0] this is the sandbox scale of the recipe" in (whole / "0" / "log").read_text()
    for rank in (1, 2):
        assert f"[rank {rank}] step 10 " in (whole / str(rank) / "log").read_text()


def test_started_again_when_complete_it_says_so_and_does_nothing(
    zygote: Zygote, stripes: Path, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole / "0", tmp_path / "0")
    assert zygote.train(tmp_path, 3, *command(stripes)) == [0, 0, 0], logs(tmp_path)
    again = progress(tmp_path)[len(progress(whole)) :]
    assert [line.get("event") for line in again] == ["resumed", "start", "finished"]
    assert again[-1]["top1"] == progress(whole)[-1]["top1"]


def test_stopped_at_every_step_and_resumed_it_ends_bit_for_bit_like_one_that_went_through(
    zygote: Zygote, stripes: Path, whole: Path, tmp_path: Path
) -> None:
    """The stop file lies on one node, which is not that of rank 0; each life lasts one step."""
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "stop").touch()
    for step in range(1, STEPS + 1):
        assert zygote.train(tmp_path, 3, *command(stripes)) == [STOPPED] * 3, logs(tmp_path)
        last = progress(tmp_path)[-1]
        assert (last["event"], last["step"]) == ("stopped", step)
        assert checkpoint.steps(tmp_path / "0" / "checkpoints")[0] == step
        shutil.rmtree(tmp_path / "1")  # other nodes need to keep nothing
    (tmp_path / "2" / "stop").unlink()
    assert zygote.train(tmp_path, 3, *command(stripes)) == [0, 0, 0], logs(tmp_path)
    assert_same(newest(tmp_path).state, newest(whole).state)
    assert newest(tmp_path).meta == newest(whole).meta
    stopped = [line["step"] for line in progress(tmp_path, "stopped")]
    assert stopped == list(range(1, STEPS + 1))
    assert [line["top1"] for line in progress(tmp_path, "eval")] == [line["top1"] for line in progress(whole, "eval")]


def test_steps_in_parts_are_resumed_bit_for_bit_too(zygote: Zygote, stripes: Path, tmp_path: Path) -> None:
    parts = command(stripes, "--micro-batch", "16", "--epochs", "1")
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    assert zygote.train(whole, 3, *parts) == [0, 0, 0], logs(whole)
    (halted / "2").mkdir(parents=True)
    (halted / "2" / "stop").touch()
    assert zygote.train(halted, 3, *parts) == [STOPPED] * 3, logs(halted)
    (halted / "2" / "stop").unlink()
    assert zygote.train(halted, 3, *parts) == [0, 0, 0], logs(halted)
    assert [line["step"] for line in progress(halted, "stopped")] == [1]
    assert_same(newest(halted).state, newest(whole).state)


def test_another_number_of_ranks_goes_on_with_the_images_that_remain(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    for world in (4, 3, 2):
        for rank in range(world):
            (tmp_path / str(rank)).mkdir(exist_ok=True)
        (tmp_path / "1" / "stop").touch()
        assert zygote.train(tmp_path, world, *command(stripes)) == [STOPPED] * world, logs(tmp_path)
    (tmp_path / "1" / "stop").unlink()
    assert zygote.train(tmp_path, 4, *command(stripes)) == [0] * 4, logs(tmp_path)
    resumed = [(line["step"], line["epoch"], line["samples_seen"]) for line in progress(tmp_path, "resumed")]
    assert resumed == [(1, 0, 128), (2, 0, 256), (3, 0, 384)]
    steps = [line["step"] for line in progress(tmp_path) if "event" not in line]
    assert steps == list(range(1, STEPS + 1))
    assert newest(tmp_path).meta["world_size"] == 4


def test_the_same_weights_score_the_same_on_any_number_of_ranks_and_count_each_image_once(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    """A training stopped at the last step of an epoch evaluates first when it goes on: the same weights each time."""
    first = tmp_path / "first"
    (first / "0").mkdir(parents=True)
    (first / "0" / "stop").touch()
    for _ in range(3):
        assert zygote.train(first, 2, *command(stripes)) == [STOPPED] * 2, logs(first)
    found = []
    for world in (1, 2, 5):
        folder = tmp_path / str(world)
        shutil.copytree(first / "0" / "checkpoints", folder / "0" / "checkpoints")
        assert zygote.train(folder, world, *command(stripes, "--epochs", "1")) == [0] * world, logs(folder)
        found.append(progress(folder, "eval"))
    for (line,) in found:
        assert line["images"] == 103
        assert (line["top1"], line["top5"]) == (found[0][0]["top1"], found[0][0]["top5"])
        assert line["val_loss"] == pytest.approx(found[0][0]["val_loss"], abs=1e-4)


def test_checkpoints_are_also_taken_by_the_clock(zygote: Zygote, stripes: Path, tmp_path: Path) -> None:
    assert zygote.train(tmp_path, 2, *command(stripes, "--checkpoint-seconds", "0", "--epochs", "1")) == [0, 0]
    assert [line["checkpoint_step"] for line in progress(tmp_path, "checkpoint")] == [1, 2, 3]


def test_where_the_ranks_word_comes_a_step_late_each_checkpoint_is_taken_once(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    """As on a GPU: asked for at step 1 and taken at 2, asked for at 3, the last of the epoch, and taken there."""
    flags = command(stripes, "--checkpoint-seconds", "0", "--epochs", "1")
    assert zygote.train(tmp_path, 2, *flags, target="late:main") == [0, 0], logs(tmp_path)
    assert [line["checkpoint_step"] for line in progress(tmp_path, "checkpoint")] == [2, 3]


def test_a_stop_in_the_last_step_of_an_epoch_does_not_wait_for_the_evaluation(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    def asks(rank: int) -> dict[str, str]:
        return {"STOP_AFTER": "3"} if rank == 1 else {}

    assert zygote.train(tmp_path, 2, *command(stripes), env=asks, target="late:main") == [STOPPED] * 2, logs(tmp_path)
    assert progress(tmp_path, "eval") == []
    assert progress(tmp_path)[-1]["step"] == 3


def test_a_validation_image_that_cannot_be_decoded_counts_as_not_recognised(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    shutil.copytree(stripes, tmp_path / "data")
    spoil(tmp_path / "data", range(43), split=pack.VALIDATION)  # the other sixty can be decoded
    flags = command(tmp_path / "data", "--epochs", "1", "--max-corrupt", "0.5")
    assert zygote.train(tmp_path, 2, *flags) == [0, 0], logs(tmp_path)
    (line,) = progress(tmp_path, "eval")
    assert line["images"] == 103
    assert line["top5"] <= 100 * 60 / 103


def test_a_checkpoint_is_taken_when_any_node_is_asked_for_it_and_the_training_goes_on(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "save").touch()
    assert zygote.train(tmp_path, 2, *command(stripes, "--epochs", "1")) == [0, 0]
    assert [line["checkpoint_step"] for line in progress(tmp_path, "checkpoint")] == [1, 3]
    assert not (tmp_path / "1" / "save").exists(), "it was heard"


def test_a_checkpoint_of_another_training_is_refused_in_one_line(
    zygote: Zygote, stripes: Path, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole / "0" / "checkpoints", tmp_path / "0" / "checkpoints")
    assert zygote.train(tmp_path, 2, *command(stripes, "--seed", "9")) == [2, 2]
    for rank in (0, 1):
        log = (tmp_path / str(rank) / "log").read_text()
        assert "is of another training: seed 0, not 9" in log and "Traceback" not in log
    assert progress(tmp_path)[-1]["event"] == "error"


def test_a_torn_newest_checkpoint_is_passed_over(zygote: Zygote, stripes: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "0" / "checkpoints", tmp_path / "0" / "checkpoints")
    (tmp_path / "0" / "checkpoints" / str(STEPS) / checkpoint.STATE).write_bytes(b"torn")
    assert zygote.train(tmp_path, 3, *command(stripes)) == [0] * 3, logs(tmp_path)
    assert progress(tmp_path)[0]["event"] == "unreadable"
    assert progress(tmp_path, "resumed")[0]["step"] < STEPS
    assert_same(newest(tmp_path).state, newest(whole).state)


def spoil(data: Path, indices: Sequence[int], split: str = pack.TRAIN) -> None:
    """Make images of the data set undecodable."""
    found = pack.open_split(data / split)
    with (data / split / pack.IMAGES).open("r+b") as images:
        for index in indices:
            images.seek(int(found.offsets[index]))
            images.write(bytes(int(found.lengths[index])))


def test_an_image_that_cannot_be_decoded_is_named_and_the_training_goes_on(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    shutil.copytree(stripes, tmp_path / "data")
    spoilt = int(order.permutation(0, 0, TRAIN)[1])  # rank 1 computes it in the first step
    spoil(tmp_path / "data", [spoilt])
    assert zygote.train(tmp_path, 2, *command(tmp_path / "data", "--epochs", "1")) == [0, 0], logs(tmp_path)
    said = f"train image {spoilt} cannot be decoded, another image stands in for it"
    assert (tmp_path / "1" / "log").read_text().count(said) == 1
    assert said not in (tmp_path / "0" / "log").read_text()


def test_when_one_rank_fails_all_end_at_once_and_only_that_one_says_why(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    shutil.copytree(stripes, tmp_path / "data")
    spoil(tmp_path / "data", order.permutation(0, 0, TRAIN)[1:20:4].tolist())  # five that rank 1 computes first
    assert zygote.train(tmp_path, 4, *command(tmp_path / "data")) == [1, 2, 1, 1], logs(tmp_path)
    texts = [(tmp_path / str(rank) / "log").read_text() for rank in range(4)]
    assert ["5 of 400 images cannot be decoded, more than 0.10%" in text for text in texts] == [
        False,
        True,
        False,
        False,
    ]
    for rank in (0, 2, 3):
        assert "another rank went away or never came" in texts[rank]
    assert not any("Traceback" in text for text in texts)
    assert progress(tmp_path)[-1]["event"] == "error"


def test_lines_say_what_a_benchmark_needs_to_know(whole: Path) -> None:
    """The data set, and for how long training stood still: for each evaluation, and for each snapshot."""
    start = progress(whole, "start")[0]
    assert (start["dataset"], start["classes"]) == ("stripes", 10)
    evaluations, saves = progress(whole, "eval"), progress(whole, "checkpoint")
    trained = [line["train_seconds"] for line in evaluations]
    assert trained == sorted(set(trained)) and trained[0] > 0
    assert all(line["seconds"] > 0 for line in (*evaluations, *saves))
    passed = evaluations[-1]["time"] - start["time"]
    stood = sum(line["seconds"] for line in evaluations) + sum(line["seconds"] for line in saves[:-1])
    assert trained[-1] + stood <= passed + 0.1


def test_it_learns(whole: Path) -> None:
    losses = [line["loss"] for line in progress(whole) if "event" not in line]
    assert losses[-1] < losses[0]
