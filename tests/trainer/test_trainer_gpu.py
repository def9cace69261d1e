"""Trainings on a GPU beside the same on a CPU: `scripts/test -m gpu`, on a machine that has one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.agent import torch_probe
from orchestrator.agent.checks import local_checks
from tests.trainer.zygote import ROOT, Zygote, logs, progress
from trainer import contract, feed, schedule, signals
from trainer import world as ranks
from trainer.data import loader
from trainer.data.loader import TrainItem
from trainer.engine import Engine, Settings
from trainer.recipes.imagenet18_sandbox import SIXTEEN as SANDBOX

pytestmark = pytest.mark.gpu
VISIBLE = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
FIRST = 6  # steps, in which rounding has not grown


def on(device: str) -> Callable[[int], Mapping[str, str]]:
    return lambda rank: {"ORCH_DEVICE": device} | VISIBLE


def command(data: Path, *more: str) -> tuple[str, ...]:
    return ("imagenet18", "--data", str(data), "--scale", "sandbox", "--log-every", "1", "--epochs", "3", *more)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in progress(folder) if "event" not in line]


def train(zygote: Zygote, folder: Path, *arguments: str, device: str = "cuda") -> list[float]:
    """Train on one rank; return the loss of each step."""
    assert zygote.train(folder, 1, *arguments, env=on(device), seconds=280) == [0], logs(folder)
    assert progress(folder, "start")[-1]["run"]["device"] == device
    return losses(folder)


@pytest.mark.parametrize("numbers", ["auto", "fp16", "fp32"])
def test_a_gpu_trains_saves_and_goes_on(zygote: Zygote, stripes: Path, tmp_path: Path, numbers: str) -> None:
    flags = command(stripes, "--precision", numbers, "--workers", "2")
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "stop").touch()
    assert zygote.train(tmp_path, 1, *flags, env=on("cuda")) == [75], logs(tmp_path)
    (tmp_path / "0" / "stop").unlink()
    train(zygote, tmp_path, *flags)
    assert progress(tmp_path)[-1]["event"] == "finished"


@pytest.mark.parametrize(
    ("flags", "apart"),
    [
        (("--precision", "fp32", "--workers", "3"), 5e-3),
        (("--precision", "fp32", "--compress", "fp16"), 0.01),
        (("--precision", "bf16", "--compress", "bf16"), 0.05),
        (("--precision", "fp16", "--compress", "fp16"), 0.05),
        (("--precision", "fp32", "--compile"), 5e-3),
    ],
)
def test_a_gpu_computes_what_a_cpu_computes(
    zygote: Zygote, stripes: Path, tmp_path: Path, flags: tuple[str, ...], apart: float
) -> None:
    """The same images in the same order, in pinned memory and by a stream of its own; the same network and steps."""
    ours = train(zygote, tmp_path / "gpu", *command(stripes, *flags))
    theirs = train(zygote, tmp_path / "cpu", *command(stripes), device="cpu")
    assert len(ours) == len(theirs) >= FIRST
    assert ours[:FIRST] == pytest.approx(theirs[:FIRST], abs=apart)


@pytest.fixture(scope="module")
def world() -> Iterator[ranks.World]:
    yield ranks.join(contract.read({"ORCH_DEVICE": "cuda"}))
    ranks.part()


@pytest.mark.parametrize(
    ("numbers", "compress", "at_once", "apart"),
    [("fp32", "none", 0, 5e-3), ("fp16", "fp16", 0, 0.05), ("bf16", "none", 16, 0.05), ("bf16", "bf16", 0, 0.05)],
)
def test_recorded_steps_are_the_steps_launched(
    world: ranks.World, numbers: str, compress: str, at_once: int, apart: float
) -> None:
    """Over two image sizes, each with batches of its own at every step, at a learning rate that changes."""
    found: dict[bool, list[float]] = {}
    for recorded in (False, True):
        settings = Settings(numbers=numbers, compress=compress, graphs=recorded)
        engine = Engine(SANDBOX, 10, settings, world)
        rng = torch.Generator().manual_seed(0)
        found[recorded] = []
        for step in range(24):
            size = 20 if step < 12 else 28
            images = torch.randint(256, (32, size, size, 3), generator=rng, dtype=torch.uint8).permute(0, 3, 1, 2)
            labels = torch.randint(10, (32,), generator=rng)
            point = replace(schedule.at(SANDBOX, 0), lr=0.02 + 0.002 * step)
            engine.step(images.cuda(), labels.cuda(), 32, point, signals.NOTHING, at_once=at_once)
            found[recorded].append(engine.loss())
        assert (engine._graphs._recorded is not None) is recorded
        wish = signals.Word(stop=True, save=False)
        assert engine.step(images.cuda(), labels.cuda(), 32, point, wish) == signals.NOTHING
        assert engine.step(images.cuda(), labels.cuda(), 32, point, signals.NOTHING) == wish
        assert engine.pending() == signals.NOTHING
        engine.close()
    assert found[True] == pytest.approx(found[False], abs=apart)
    assert len(set(found[True])) == len(found[True])  # no step was repeated with the images of another


def test_a_share_computed_in_parts_trains_alike_on_a_gpu(zygote: Zygote, stripes: Path, tmp_path: Path) -> None:
    """Batch normalisation sees the parts, on both devices."""
    flags = command(stripes, "--micro-batch", "50", "--precision", "fp32")
    ours = train(zygote, tmp_path / "gpu", *flags)
    theirs = train(zygote, tmp_path / "cpu", *flags, device="cpu")
    assert ours[:FIRST] == pytest.approx(theirs[:FIRST], abs=5e-3)


@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_checkpoint_goes_on_on_the_other_device(
    zygote: Zygote, stripes: Path, tmp_path: Path, first: str, then: str
) -> None:
    whole = train(zygote, tmp_path / "whole", *command(stripes, "--precision", "fp32"), device="cpu")
    train(zygote, tmp_path / "parts", *command(stripes, "--precision", "fp32", "--steps", "4"), device=first)
    both = train(zygote, tmp_path / "parts", *command(stripes, "--precision", "fp32"), device=then)
    assert len(both) == len(whole)
    assert both[:FIRST] == pytest.approx(whole[:FIRST], abs=5e-3)


def test_pinned_batches_on_a_stream_of_their_own_are_the_images_that_were_made(stripes: Path) -> None:
    """While the device is kept busy, so that copies are late and memory would be used again too soon."""
    chosen = [tuple(range(16 * step % 400, 16 * step % 400 + 16)) for step in range(60)]
    items = [TrainItem(indices, step, 32, 0.08, "") for step, indices in enumerate(chosen)]
    images = loader.Images(stripes, seed=0, flip=True)
    made = loader.batches(images, items, workers=0, pin=False)
    expected = [(pixels.clone(), labels.clone()) for pixels, labels in made]
    device, busy = torch.device("cuda"), torch.ones(2048, 2048, device="cuda")
    kept = []
    for pixels, labels in feed.to_device(loader.batches(images, items, workers=3, pin=True), device):
        busy = (busy @ busy).clamp(0, 1)
        kept.append((pixels + 0, labels + 0))
    torch.cuda.synchronize()
    assert len(kept) == len(expected)
    for (pixels, labels), (right, known) in zip(kept, expected, strict=True):
        assert torch.equal(pixels.cpu(), right) and torch.equal(labels.cpu(), known)


def test_the_checks_of_a_node_see_its_gpus(tmp_path: Path) -> None:
    found = {check.name: check for check in local_checks(tmp_path, "us-east-1", gpus=1)}
    assert (found["gpus"].state, found["gpus"].detail) == ("ok", f"{torch.cuda.device_count()} GPU")
    more = {check.name: check for check in local_checks(tmp_path, "us-east-1", gpus=99)}
    assert more["gpus"].state == "fail"


@pytest.mark.parametrize("program", [(torch_probe.__file__,), ("-m", "trainer.selftest")])
def test_an_all_reduce_of_all_gpus_runs_by_nccl(program: tuple[str, ...]) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={torch.cuda.device_count()}", *program]
    environment = os.environ | {"ORCH_DEVICE": "cuda", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"rate"' in done.stdout or torch.cuda.get_device_name() in done.stdout


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="what asks for memory asks nvidia-smi")
def test_a_training_leaves_no_memory_of_the_gpu_behind(zygote: Zygote, stripes: Path, tmp_path: Path) -> None:
    def used() -> int:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])

    before = used()
    train(zygote, tmp_path, *command(stripes))
    assert used() <= before + 16
