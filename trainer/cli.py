"""The command line of the trainer: flags in, exit code out. Imports torch only once everything given makes sense.

Each command is added by the module it belongs to, which sets `run`: a function of the parsed arguments that returns the
exit code.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer import describe, infer, recipes, train
from trainer.arguments import positive
from trainer.data import commands as datasets
from trainer.errors import DONE, TrainerError
from trainer.flags import Flags
from trainer.table import KEEP

EXITS = "exit codes: 0 done, 1 failed, 2 bad input, 75 stopped as asked with a checkpoint saved, 130 Ctrl-C"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m trainer` with `argv`; return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except TrainerError as error:
        sys.stderr.write(error.text() + "\n")
        return error.exit_code
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Flags(prog="python -m trainer", description="Train image classifiers.", epilog=EXITS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train.add(commands, EXITS)
    infer.add(commands)
    _add_describe(commands)
    datasets.add(commands)
    return parser


def _add_describe(commands: argparse._SubParsersAction[Any]) -> None:
    shows = commands.add_parser("describe", help="print the phases of a recipe")
    shows.set_defaults(run=_describe)
    shows.add_argument("recipe", choices=recipes.RECIPES)
    shows.add_argument("--nodes", type=positive, help="number of machines (as the largest table is written for)")
    shows.add_argument("--gpus-per-node", type=positive, help="GPUs (ranks) of each (the same)")
    shows.add_argument("--scale", choices=recipes.SCALES, default=recipes.FULL)
    train.add_table(shows)
    shows.add_argument("--json", action="store_true", help="phases, and what holds at every quarter epoch")
    shows.add_argument("--plot", type=Path, metavar="FILE", help="draw it too (.png, .svg, .pdf; needs matplotlib)")


def _describe(arguments: argparse.Namespace) -> int:
    largest = recipes.largest(arguments.recipe, arguments.scale)
    ranks = (arguments.nodes or largest.machines) * (arguments.gpus_per_node or largest.gpus_per_machine)
    keep = arguments.keep or KEEP
    recipe = recipes.find(arguments.recipe, arguments.scale, ranks, table=arguments.table, keep=keep)
    if arguments.plot:
        from trainer import plot

        plot.draw(recipe, arguments.plot)
    text = json.dumps(describe.as_json(recipe), indent=1) if arguments.json else describe.as_table(recipe)
    sys.stdout.write(text + "\n")
    return DONE
