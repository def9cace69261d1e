"""The command that trains, one for each recipe: its flags, and from them a job. Imports torch only to run it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from trainer import check, contract, recipes, table
from trainer.arguments import natural, positive, seconds, share
from trainer.data import damage
from trainer.job import SYNTHETIC_CLASSES, SYNTHETIC_SAMPLES, Job
from trainer.table import KEEP, Asked


def add(commands: argparse._SubParsersAction[Any], epilog: str) -> None:
    """Add a command for each recipe to `commands`."""
    for name in recipes.RECIPES:
        parser = commands.add_parser(name, help=f"train the recipe {name}, under torchrun", epilog=epilog)
        parser.set_defaults(run=_train, recipe=name)
        _add_what(parser)
        _add_how(parser)


def _add_what(parser: argparse.ArgumentParser) -> None:
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--data", type=Path, metavar="DIR", help="packed data set")
    images.add_argument("--synthetic", action="store_true", help="made-up images in memory, to measure speed")
    add = parser.add_argument
    add("--classes", type=positive, default=SYNTHETIC_CLASSES, help=f"of --synthetic ({SYNTHETIC_CLASSES})")
    add("--scale", choices=recipes.SCALES, default=recipes.FULL, help="sandbox: tiny images and network, for CPUs")
    add_table(parser)
    add("--epochs", type=positive, help="train only the first so many epochs")
    add("--steps", type=positive, metavar="N", help="end after so many steps in all")
    add("--seed", type=natural, default=0, help="of the order of images, their crops, and the network (0)")
    add("--max-corrupt", type=share, default=damage.SHARE, help=f"share of images to do without ({damage.SHARE:g})")


def add_table(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a recipe serves a number of ranks."""
    add = parser.add_argument
    add("--table", type=positive, metavar="N", help="the table written for N GPUs, whatever the number of ranks")
    add(
        "--keep",
        choices=("global-batch", "gpu-batch"),
        help=f"what stays on other numbers of ranks ({KEEP}; a resumed training keeps what it began with)",
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workers", type=natural, help="loader processes per rank (none at sandbox scale, else 7)")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of the network's numbers")
    add(
        "--compress",
        choices=("auto", "none", "bf16", "fp16"),
        default="auto",
        help="of gradients between ranks (auto: 16 bit between machines when trained in 16 bit)",
    )
    add("--compile", action="store_true", help="compile the network for each image size (slow to begin)")
    add("--graphs", choices=("auto", "on", "off"), default="auto", help="steps as CUDA graphs (auto: on one GPU)")
    add("--micro-batch", type=positive, metavar="N", help="images a rank computes at once (as its GPU's memory holds)")
    add("--checkpoint-seconds", type=seconds, default=60.0, metavar="S", help="between checkpoints (60)")
    add("--log-every", type=positive, metavar="STEPS", help="steps between progress lines")


def _train(arguments: argparse.Namespace) -> int:
    node = contract.read(os.environ)
    asked = Asked(recipe=arguments.recipe, scale=arguments.scale, table=arguments.table, keep=arguments.keep)
    if arguments.data is None:
        table.possible(asked, node.world)  # raises for a table that is not there
    else:
        check.data(arguments.data, asked, node.world)
    sandbox = asked.scale == recipes.SANDBOX
    job = Job(
        asked=asked,
        root=arguments.data,
        classes=arguments.classes,
        samples=SYNTHETIC_SAMPLES[asked.scale],
        epochs=arguments.epochs,
        steps=arguments.steps,
        seed=arguments.seed,
        workers=(0 if sandbox else 7) if arguments.workers is None else arguments.workers,
        max_corrupt=arguments.max_corrupt,
        numbers=arguments.precision,
        compress=arguments.compress,
        compiled=arguments.compile,
        graphs=arguments.graphs,
        micro_batch=arguments.micro_batch,
        checkpoint_seconds=arguments.checkpoint_seconds,
        log_every=arguments.log_every,
    )
    from trainer.run import run

    return run(job, node)
