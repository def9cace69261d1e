"""What follows from the hardware: numbers, parts of a batch, messages between ranks. And trainings that try it here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainer.zygote import ROOT, Zygote, logs, progress
from trainer import compress, graphs, memory, notices, precision, world
from trainer.errors import TrainerError
from trainer.recipes.imagenet18 import EIGHT, SIXTEEN
from trainer.recipes.imagenet18_sandbox import SIXTEEN as SANDBOX
from trainer.recipes.imagenet_21ep import EIGHT as TWENTY_ONE

VOLTA, AMPERE, HOPPER = (7, 0), (8, 0), (9, 0)


@pytest.mark.parametrize(
    ("wanted", "capability", "numbers"),
    [
        ("auto", None, "fp32"), ("bf16", None, "bf16"),
        ("auto", VOLTA, "fp16"), ("fp32", VOLTA, "fp32"),
        ("auto", AMPERE, "bf16"), ("auto", HOPPER, "bf16"), ("fp16", HOPPER, "fp16"),
    ],
)  # fmt: skip
def test_numbers_follow_the_gpu_unless_they_are_given(
    wanted: str, capability: tuple[int, int] | None, numbers: str
) -> None:
    assert precision.decide(wanted, capability) == numbers


@pytest.mark.parametrize(("wanted", "capability"), [("bf16", VOLTA), ("fp16", None)])
def test_numbers_the_hardware_does_not_have_are_refused(wanted: str, capability: tuple[int, int] | None) -> None:
    with pytest.raises(TrainerError) as refused:
        precision.decide(wanted, capability)
    assert "--precision" in refused.value.hint


def test_only_fp16_scales_its_loss_and_starts_where_the_original_stayed() -> None:
    cpu = torch.device("cpu")
    assert not precision.scaler("bf16", cpu).is_enabled()
    scaler = precision.scaler("fp16", cpu)
    assert scaler.is_enabled() and scaler.get_scale() == 1024.0


@pytest.mark.parametrize(
    ("wanted", "numbers", "machines", "chosen"),
    [
        ("auto", "fp16", 16, "fp16"), ("auto", "bf16", 2, "bf16"), ("auto", "bf16", 1, "none"),
        ("auto", "fp32", 16, "none"), ("none", "fp16", 16, "none"), ("bf16", "fp32", 1, "bf16"),
    ],
)  # fmt: skip
def test_gradients_travel_in_16_bit_between_machines_that_compute_in_16_bit(
    wanted: str, numbers: str, machines: int, chosen: str
) -> None:
    assert compress.choose(wanted, numbers, machines) == chosen


@pytest.mark.parametrize(
    ("wanted", "device", "ranks", "recorded"),
    [
        ("auto", "cuda", 1, True), ("auto", "cuda", 8, False), ("on", "cuda", 8, True), ("off", "cuda", 1, False),
        ("auto", "cpu", 1, False),
    ],
)  # fmt: skip
def test_one_gpu_records_its_steps_and_more_do_when_asked(wanted: str, device: str, ranks: int, recorded: bool) -> None:
    assert graphs.choose(wanted, device, ranks) is recorded
    assert graphs.choose(wanted, device, ranks, compiled=True) is (wanted == "on")


def test_a_step_is_recorded_where_it_leaves_room_for_an_evaluation() -> None:
    assert graphs.fits(peak=11 << 30, total=16 << 30) and not graphs.fits(peak=12 << 30, total=16 << 30)


def test_messages_are_one_on_gloo_and_small_inside_a_machine() -> None:
    assert world.bucket_mb("cpu", 16) > world.bucket_mb("cuda", 16) > world.bucket_mb("cuda", 1)


def test_a_gpu_computes_at_once_what_was_seen_to_fit() -> None:
    at_128, at_288 = EIGHT.data[1], EIGHT.data[-1]
    assert memory.limit(EIGHT, at_128, None) == 128  # a CPU, in 32 bit
    assert memory.limit(SANDBOX, SANDBOX.data[0], None) == 0  # so small that all fits
    assert memory.limit(EIGHT, at_128, 16) == 256
    assert memory.limit(EIGHT, at_288, 15.7) == 128
    assert memory.limit(EIGHT, at_288, 80) == 640
    assert memory.limit(TWENTY_ONE, TWENTY_ONE.data[2], 31.7) == 256  # written for 32 GiB
    assert memory.limit(TWENTY_ONE, TWENTY_ONE.data[2], 16) == 128
    assert memory.limit(SIXTEEN, SIXTEEN.data[0], 16) == 192  # what fits at 224 pixels fits at 128


def test_a_share_is_computed_in_as_few_parts_as_fit() -> None:
    assert [memory.parts(512, limit) for limit in (0, 512, 511, 128)] == [1, 1, 2, 4]


def test_parts_and_cut_batches_are_said_for_the_phases_they_are_in() -> None:
    recipe = replace(EIGHT, ranks=8)
    limits = {phase: memory.limit(recipe, phase, 16) for phase in recipe.data}
    said = list(notices.parts(recipe, recipe.epochs, limits))
    assert said[0] == "epochs 0-6: the 1,024 images of a rank are computed in 4 parts of at most 256"
    assert len(said) == len(recipe.data)
    assert list(notices.parts(recipe, 6, limits)) == said[:1]
    assert list(notices.small(recipe, 35, 10_000)) == [
        "epochs 6-14: a batch of 16,384 images is cut to the 10,000 there are; learning rates stay",
        "epochs 17-29: a batch of 14,336 images is cut to the 10,000 there are; learning rates stay",
    ]


def command(data: Path, *more: str) -> list[str]:
    return ["imagenet18", "--data", str(data), "--scale", "sandbox", "--log-every", "1", "--epochs", "1", *more]


def test_flags_reach_the_training_and_its_first_line_says_so(zygote: Zygote, stripes: Path, tmp_path: Path) -> None:
    flags = ("--precision", "bf16", "--compress", "bf16", "--micro-batch", "16")
    assert zygote.train(tmp_path, 2, *command(stripes, *flags)) == [0, 0], logs(tmp_path)
    about = progress(tmp_path, "start")[0]["run"]
    assert (about["precision"], about["compress"], about["device"]) == ("bf16", "bf16", "cpu")
    log = (tmp_path / "0" / "log").read_text()
    assert "epochs 0-1: the 64 images of a rank are computed in 4 parts of at most 16" in log
    losses = [line["loss"] for line in progress(tmp_path) if "event" not in line]
    assert len(losses) == 3 and all(0 < loss < 4 for loss in losses)


@pytest.mark.parametrize(
    ("flags", "said"),
    [(("--precision", "fp16"), "fp16 is for GPUs"), (("--graphs", "on"), "--graphs on is for GPUs")],
)
def test_what_only_gpus_can_ends_in_one_line(
    zygote: Zygote, stripes: Path, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    assert zygote.train(tmp_path, 1, *command(stripes, *flags)) == [2]
    log = (tmp_path / "0" / "log").read_text()
    assert said in log and "Traceback" not in log


@pytest.mark.long
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_a_compiled_network_trains_alike(zygote: Zygote, stripes: Path, tmp_path: Path) -> None:
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    ends = []
    for name, flags in (("plain", ()), ("compiled", ("--compile",))):
        folder = tmp_path / name
        codes = zygote.train(folder, 1, *command(stripes, *flags), env=lambda rank: cache, seconds=280)
        assert codes == [0], logs(folder)
        ends.append([line["loss"] for line in progress(folder) if "event" not in line])
    assert progress(tmp_path / "compiled", "start")[0]["run"]["compiled"] is True
    assert ends[0] == pytest.approx(ends[1], abs=1e-3)


def test_the_gpu_benchmark_works_where_there_is_none(stripes: Path) -> None:
    """So that whoever is lent a GPU for minutes finds it working; what it prints of a CPU means nothing."""
    script = [sys.executable, str(ROOT / "scripts" / "bench_gpu.py"), "--device", "cpu", "speed"]
    size = ("--cases", "32x2", "--steps", "1", "--workers", "0", "--data", str(stripes))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*script, *size], env=environment, capture_output=True, text=True, check=True)
    row = done.stdout.splitlines()[-1].split()
    assert row[:2] == ["32", "2"] and len(row) == 4
