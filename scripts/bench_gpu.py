"""Training speed on this machine's GPU: images a second of ResNet-50 by image size, and CIFAR-10 to its threshold.

`speed` steps as the trainer does (engine, precision, loader), first on images made up on the device, then on packed
JPEGs: those of `--data`, or some cut as `bench_loader` cuts them, stored at 160 and 352 pixels as the recipes' copies
are. `cifar10` trains the recipe with one seed after the other and prints when each reached 94%. On a CPU both only show
that they work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scripts import bench_loader
from trainer import contract, graphs, precision, schedule, signals
from trainer import world as ranks
from trainer.data import order, pack
from trainer.data.loader import TrainItem
from trainer.data.workers import AHEAD
from trainer.engine import Engine, Settings
from trainer.recipe import DataPhase, Ramp, Recipe
from trainer.recipes.imagenet18 import ONE
from trainer.source import Packed, Source
from trainer.synthetic import Synthetic
from trainer.world import World

CLASSES = 1000
WARM_UP = 10
QUIET = signals.Word(stop=False, save=False)
CASES = ((96, 256), (128, 64), (128, 256), (224, 192), (288, 128))  # pixels, images a step, as the recipes have them
THRESHOLD = 94.0


def recipe_of(size: int, batch: int, root: Path | None) -> Recipe:
    """Return ResNet-50 at one image size on one GPU, from the copies that suit it where `root` has such."""
    copies = "sz/160" if size <= 128 else "sz/352"
    folder = copies if root and (root / copies).is_dir() else ""
    data = (DataPhase(start=0, size=size, batch=batch, folder=folder),)
    return replace(ONE, machines=1, gpus_per_machine=1, ranks=1, epochs=1, data=data, lr=(Ramp(0, 0.1),))


def items(recipe: Recipe, samples: int, steps: int) -> Iterator[TrainItem]:
    """Yield the shares of `steps` steps, epoch after epoch."""
    point = schedule.at(recipe, 0)
    epochs = 1 + steps * point.batch // samples
    plan = order.remaining(replace(recipe, epochs=epochs), samples, 0, epoch=0, seen=0, epochs=epochs)
    for batch, _ in zip(plan, range(steps), strict=False):
        yield TrainItem(tuple(batch.indices.tolist()), batch.epoch, point.size, point.min_scale, point.folder)


def images_per_second(
    recipe: Recipe, source: Source, settings: Settings, world: World, steps: int, *, ahead: int = 0
) -> float:
    """Return the speed of `steps` steps after a few that do not count; by then loaders made `ahead` batches."""
    warm_up, steps = WARM_UP + ahead, max(steps, 4 * ahead)
    engine, point = Engine(recipe, CLASSES, settings, world), schedule.at(recipe, 0)
    began = time.perf_counter()
    count = 0
    for step, (images, labels) in enumerate(source.training(items(recipe, source.samples, warm_up + steps))):
        if step == warm_up:
            engine.loss()  # waits for the device
            began = time.perf_counter()
        engine.step(images, labels, len(labels), point, QUIET)
        count += len(labels) if step >= warm_up else 0
    engine.loss()
    speed = count / (time.perf_counter() - began)
    engine.close()
    return speed


def speed(arguments: argparse.Namespace) -> None:
    """Print a row for every image size."""
    world = ranks.join(contract.read({"ORCH_DEVICE": arguments.device}))
    numbers = precision.choose(arguments.precision, world.device)
    recorded = graphs.choose(arguments.graphs, world.device.type, world.size, compiled=arguments.compile)
    settings = Settings(numbers=numbers, compiled=arguments.compile, graphs=recorded)
    how = f"{numbers}, compiled: {arguments.compile}, CUDA graphs: {recorded}"
    print(f"{name_of(world.device)}, torch {torch.__version__}, {how}")
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        root = arguments.data or photographs(Path(folder))
        print("pixels  batch  synthetic images/s  packed images/s")
        for size, batch in arguments.cases:
            recipe = recipe_of(size, batch, root)
            made_up = Synthetic(CLASSES, 100 * batch, world.device, seed=0)
            alone = images_per_second(recipe, made_up, settings, world, arguments.steps)
            packed = Packed(root, recipe, world.device, seed=0, workers=arguments.workers, max_corrupt=0.0)
            ahead = AHEAD * arguments.workers
            fed = images_per_second(recipe, packed, settings, world, arguments.steps, ahead=ahead)
            print(f"{size:6}  {batch:5} {alone:19,.0f} {fed:16,.0f}", flush=True)
    ranks.part()


def photographs(root: Path) -> Path:
    """Make a packed data set of few pictures at `root`; return it."""
    _, pictures = bench_loader.photos(None)
    for case in bench_loader.CASES:
        bench_loader.build(root / "sz", case, pictures)
    pack.write_about(root, {"name": "photographs", "classes": CLASSES})
    return root


def case(text: str) -> tuple[int, int]:
    """Return what "224x192" says: pixels, images a step."""
    size, batch = text.split("x")
    return int(size), int(batch)


def cifar10(arguments: argparse.Namespace) -> None:
    """Print a row for every seed, and the median time to the threshold."""
    print(f"{name_of(torch.device(arguments.device))}, torch {torch.__version__}: {arguments.recipe} to {THRESHOLD}%")
    reached = []
    for seed in range(arguments.runs):
        with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
            lines = train(arguments, seed, Path(folder))
        rows = [line for line in lines if line.get("event") == "eval"]
        hit = next((row for row in rows if row["top1"] >= THRESHOLD), None)
        reached.append(hit["train_seconds"] if hit else float("inf"))
        when = f"epoch {hit['epoch']}, {hit['train_seconds']:.1f} s of training" if hit else "not reached"
        print(
            f"seed {seed}: {when}; at the end {rows[-1]['top1']:.2f}% after {rows[-1]['train_seconds']:.1f} s",
            flush=True,
        )
    print(f"median of {len(reached)}: {statistics.median(reached):.1f} s of training to {THRESHOLD}%")


def train(arguments: argparse.Namespace, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Return the progress lines of one training."""
    environment = os.environ | {
        "ORCH_DEVICE": arguments.device,
        "ORCH_CHECKPOINT_DIR": str(folder / "checkpoints"),
        "ORCH_PROGRESS_FILE": str(folder / "progress.jsonl"),
        "ORCH_STOP_FILE": str(folder / "stop"),
    }
    command = [sys.executable, "-m", "trainer", arguments.recipe, "--data", str(arguments.data), "--seed", str(seed)]
    command += ["--workers", str(arguments.workers), "--checkpoint-seconds", "86400", *arguments.more]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def name_of(device: torch.device) -> str:
    """Return what the machine calls its GPU, or its processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    commands = parser.add_subparsers(required=True)
    fast = commands.add_parser("speed")
    fast.add_argument("--data", type=Path, help="packed data set of large images: `python -m trainer pack`")
    fast.add_argument("--cases", type=case, nargs="+", metavar="PIXELSxBATCH", default=CASES)
    fast.add_argument("--precision", choices=precision.CHOICES, default="auto")
    fast.add_argument("--steps", type=int, default=50)
    fast.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)) - 1)
    fast.add_argument("--compile", action="store_true")
    fast.add_argument("--graphs", choices=graphs.CHOICES, default="auto")
    fast.set_defaults(run=speed)
    small = commands.add_parser("cifar10")
    small.add_argument("--data", type=Path, required=True, help="what `python -m trainer cifar10` made")
    small.add_argument("--recipe", default="cifar10-preact18")
    small.add_argument("--runs", type=int, default=5)
    small.add_argument("--workers", type=int, default=7)
    small.add_argument("more", nargs="*", help="after --: further flags of the trainer")
    small.set_defaults(run=cifar10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
