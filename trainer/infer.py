"""`python -m trainer infer`: the inference track of DAWNBench, a trained network that classifies one image at a time.

Latency is the mean over every validation image, decoding and resizing included: the benchmark's rules
(stanford-futuredata/dawn-bench-entries, README) leave open whether they count, so the longer time is told, and that of
the network alone beside it in `misc`. Cost is latency times the price of the machine. Imports torch only to run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import recipes
from trainer.arguments import dollars, positive
from trainer.contract import read
from trainer.errors import DONE
from trainer.recipe import Recipe
from trainer.words import counted

if TYPE_CHECKING:
    import torch

    from trainer.latency import Found

VERSION = "v1.0"
HOUR = 3600.0


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser("infer", help="measure latency and cost of a trained network, one image at a time")
    parser.set_defaults(run=_infer)
    give = parser.add_argument
    give("recipe", choices=recipes.RECIPES)
    give(
        "--data", type=Path, required=True, metavar="DIR", help="packed data set whose validation images are classified"
    )
    give(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of checkpoints, of which the newest is used",
    )
    give("--scale", choices=recipes.SCALES, default=recipes.FULL)
    give("--images", type=positive, metavar="N", help="only the first so many (an entry needs all)")
    give("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of the network's numbers")
    give("--compile", action="store_true", help="compile the network first")
    give("--cost-per-hour", type=dollars, metavar="DOLLARS", help="of the machine, on-demand")
    give("--author", default="", help="who enters the benchmark")
    give("--email", default="", help="their address")
    give("--hardware", default="", help="what the machine is called (by default its GPU or processor)")
    give("--json", action="store_true", help="the entry for the benchmark, instead of a line for a person")


def _infer(arguments: argparse.Namespace) -> int:
    recipe = recipes.find(arguments.recipe, arguments.scale, 1)
    wanted = read(os.environ).device
    import torch

    from trainer import precision
    from trainer.latency import Classifier

    cuda = wanted != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    numbers = precision.choose(arguments.precision, device)
    classifier = Classifier(
        recipe, arguments.checkpoint, arguments.data, device, numbers=numbers, compiled=arguments.compile
    )
    found = classifier.measure(arguments.images, _say)
    made = record(recipe, found, arguments, hardware=arguments.hardware or hardware(device), numbers=numbers)
    sys.stdout.write((json.dumps(made, indent=1) if arguments.json else line(found, made["cost"])) + "\n")
    return DONE


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def record(recipe: Recipe, found: Found, given: argparse.Namespace, *, hardware: str, numbers: str) -> dict[str, Any]:
    """Return the entry: `latency` in milliseconds, `cost` in dollars for an image, None without a price."""
    import torch

    cost = None if given.cost_per_hour is None else found.seconds / HOUR * given.cost_per_hour
    return {
        "version": VERSION,
        "author": given.author,
        "authorEmail": given.email,
        "framework": f"PyTorch {torch.__version__}",
        "model": recipe.model,
        "hardware": hardware,
        "timestamp": f"{datetime.now(UTC):%Y-%m-%d}",
        "latency": round(1000 * found.seconds, 4),
        "cost": cost,
        "top1Accuracy": round(found.top1, 3),
        "top5Accuracy": round(found.top5, 3),
        "misc": {
            "images": found.images,
            "networkLatency": round(1000 * found.network_seconds, 4),
            "precision": numbers,
            "recipe": recipe.name,
            "scale": recipe.scale,
            "compiled": given.compile,
        },
    }


def line(found: Found, cost: float | None) -> str:
    """Return what a person reads."""
    price = "" if cost is None else f", ${cost:.3g} an image"
    return (
        f"{counted(found.images, 'image')} one at a time: {1000 * found.seconds:.3f} ms each{price} "
        f"({1000 * found.network_seconds:.3f} ms of it in the network), "
        f"top-1 {found.top1:.2f}%, top-5 {found.top5:.2f}%"
    )


def hardware(device: torch.device) -> str:
    """Return what `device` calls itself."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
