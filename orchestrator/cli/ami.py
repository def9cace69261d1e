"""`orch ami`: machine images from recipes: build, check and publish, list, remove."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Place, in_reach, open_for_launch, open_home, open_place, wanted
from orchestrator.cli.faults import Commands
from orchestrator.cli.options import can_ask, cloud_option, json_option, need_yes, read_caps, yes_option
from orchestrator.core.units import counted, listed
from orchestrator.errors import BadInput, Exit, NoPermission, NotFound, OrchError

if TYPE_CHECKING:
    from orchestrator.core.images import Image
    from orchestrator.core.recipe import Recipe
    from orchestrator.run.build import Plans, Wanted
    from orchestrator.run.home import Home
    from orchestrator.run.prepare import Source

PACKAGE = Path(__file__).parents[1]
# In the wheel the recipes are part of the package, in a checkout they lie beside it.
FOLDERS = (PACKAGE / "ami", PACKAGE.parent / "ami")
DIGITS = 12


@click.group(cls=Commands, name="ami")
def command() -> None:
    """Machine images from recipes (docs/images.md): what nodes boot, with driver and libraries on it.

    `resources.image: volta` in an experiment means the newest published image that was built from the recipe `volta`.
    """


@command.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("--force", is_flag=True, help="Build even when nothing has changed since the published image.")
@click.option("--max-cost", metavar="DOLLARS", help="Of both runs together: one that would pass it ends the build.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done and cost; change nothing.")
@yes_option
@cloud_option
@json_option
def build(
    *, recipe: str, force: bool, max_cost: str | None, dry_run: bool, yes: bool, cloud: str | None, as_json: bool
) -> int:
    """Build RECIPE (volta, modern, or a YAML file), check the image on a real boot, publish it by the recipe's name.

    An image of the same recipe and base is not built again. The image before is removed with its snapshots. When a step
    or a check fails nothing is published and nothing is left. Ends with 0 when there is a checked image of the recipe.
    """
    from orchestrator.run.build import look_up, plan_build

    caps, faults = read_caps(max_cost, None)
    home = open_home()
    name = wanted(home, cloud)
    loaded, source = _load(recipe, name, faults)
    place = open_for_launch(home, name, _progress)
    found = look_up(loaded, place.session)
    if found.published is not None and not force:
        return _up_to_date(found.published, as_json=as_json)
    plans = plan_build(found, source, place.session, place.settings, caps.max_cost)
    if dry_run or not as_json:
        _show_plans(found, plans, as_json=as_json)
    if dry_run:
        return Exit.DONE
    need_yes(
        f"Build {loaded.name}?",
        yes=yes,
        what="building",
        hint="give -y, or --dry-run",
        declined="nothing was built",
        as_json=as_json,
    )
    return _build(found, plans, place, home, as_json=as_json)


@command.command(name="list")
@cloud_option
@json_option
def list_images(*, cloud: str | None, as_json: bool) -> None:
    """List the published images: name, id, digest of the recipe, age, size, and what keeping them costs a month."""
    found: list[tuple[Place, Image]] = []
    places, errors = in_reach(open_home(), cloud)
    if not places:
        raise errors[0] if errors else NoPermission("no cloud is in reach", "`orch doctor` says what is missing")
    for place in places:
        from orchestrator.aws.own_images import OwnImages

        found += [(place, image) for image in OwnImages(place.session).published()]
    if as_json:
        from orchestrator.report.json import dumps

        click.echo(dumps([_json(image) | {"cloud": place.cloud} for place, image in found]))
    elif not found:
        click.echo("no images; `orch ami build volta` builds one")
    else:
        _show([_row(place, image) for place, image in found])


@command.command()
@click.argument("image", metavar="IMAGE")
@yes_option
@cloud_option
def rm(*, image: str, yes: bool, cloud: str | None) -> None:
    """Remove the images called IMAGE (all of that recipe), or the one with that id, together with their snapshots."""
    from orchestrator.aws.own_images import OwnImages
    from orchestrator.run.build import users

    home = open_home()
    place = open_place(home, wanted(home, cloud) or "aws")
    own = OwnImages(place.session)
    every = own.published()
    chosen = [item for item in every if image in {item.name, item.image_id}]
    if not chosen:
        there = listed(sorted({item.name for item in every}))
        hint = there if every else f"{there}: `orch ami build` makes one"
        raise NotFound(f"orch has built no image {image!r} in {place.settings.region}", hint)
    for item in chosen:
        if needed := users(own, place.bucket, item):
            raise BadInput(
                f"{item.image_id} is in use by {', '.join(needed)}: a run that waits for or loses a machine needs it",
                "`orch status` shows what runs; remove it when that has ended",
            )
    _show([_row(place, item) for item in chosen])
    question = f"Remove {counted(len(chosen), 'image')} with their snapshots?"
    if not yes and not (can_ask() and click.confirm(question, default=False)):
        raise OrchError("nothing was removed", "give -y where there is nobody to ask", exit_code=Exit.INTERRUPTED)
    for item in chosen:
        own.remove(item)
        click.echo(f"removed {item.image_id} ({item.name}) and {counted(len(item.snapshots), 'snapshot')}")


def _load(text: str, cloud: str | None, faults: list[str]) -> tuple[Recipe, Source]:
    """Return a checked recipe, the profile of the cloud applied. Raises BadInput, with the `faults` of flags too."""
    from orchestrator.core.parse import Fault, Origin
    from orchestrator.core.recipe import load
    from orchestrator.run.prepare import Source

    file = next((file for folder in FOLDERS if (file := folder / f"{text}.yaml").is_file()), None)
    built_in = file is not None and "/" not in text
    if not built_in or file is None:
        file = Path(text).absolute()
    name = file.stem if built_in else text
    try:
        body = file.read_bytes()
    except OSError as error:
        names = sorted({found.stem for folder in FOLDERS for found in folder.glob("*.yaml")})
        near = difflib.get_close_matches(text, names, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        hint = f"{meant}{listed(names)}; or give a YAML file"
        raise BadInput(f"there is no recipe {text!r}: {error.strerror}", hint, details=tuple(faults)) from error
    flags = [
        Fault((key,), message, Origin(layer="--max-cost"))
        for key, _, message in (line.partition(": ") for line in faults)
    ]
    return load(body, name, cloud or "aws", flags), Source(name, None if built_in else file, cloud or "aws")


def _up_to_date(image: Image, *, as_json: bool) -> int:
    if as_json:
        from orchestrator.report.json import dumps

        click.echo(dumps({"built": False, "image": _json(image)}))
    else:
        click.echo(f"{image.name} is up to date: {image.image_id}, recipe {image.digest[:DIGITS]}; --force builds anew")
    return Exit.DONE


def _show_plans(found: Wanted, plans: Plans, *, as_json: bool) -> None:
    if as_json:
        from orchestrator.report.json import dumps

        runs = {"build": plans.build.to_json(), "check": plans.check.to_json()}
        click.echo(dumps({"name": found.recipe.name, "digest": found.digest, "base": found.base} | runs))
        return
    from orchestrator.cli.experiment import Loaded
    from orchestrator.cli.plan import show

    click.echo(f"{found.recipe.name}: recipe {found.digest[:DIGITS]}, from {found.base}")
    for prepared in (plans.build, plans.check):
        show(prepared, Loaded(prepared.experiment, prepared.source), as_json=False)
    steps, checks = counted(len(found.recipe.steps), "step"), counted(len(found.recipe.checks), "check")
    click.echo(f"then: {steps}, an image, {checks} on a machine that boots from it, publication")


def _build(found: Wanted, plans: Plans, place: Place, home: Home, *, as_json: bool) -> int:
    from orchestrator.cli.outcome import TAIL_SHOWN, exit_code
    from orchestrator.run.build import build_image

    outcome = build_image(found, plans, place.session, home, _progress)
    if outcome.image is None:
        verdict = outcome.verdict
        what = "build" if len(outcome.runs) == 1 else "check"
        logs = f"`orch logs {outcome.runs[-1]}` has everything it said"
        raise OrchError(
            f"no image was published; {what}: {verdict.message}",
            "its caps are --max-cost and the recipe's max_duration" if verdict.kind == "capped" else logs,
            exit_code=exit_code(verdict),
            details=verdict.details[-TAIL_SHOWN:],
        )
    if as_json:
        from orchestrator.report.json import dumps

        removed = [item.image_id for item in outcome.removed]
        value = {"built": True, "image": _json(outcome.image), "runs": list(outcome.runs), "removed": removed}
        click.echo(dumps(value))
    else:
        from orchestrator.run.builds import dollars

        image, paid = outcome.image, dollars(place.session, place.bucket, outcome.runs)
        click.echo(f"{image.name} is {image.image_id}, checked; `resources.image: {image.name}` uses it ({paid})")
    return Exit.DONE


def _json(image: Image) -> dict[str, Any]:
    from orchestrator.core.units import usd

    return image.to_json() | {"usd_month": usd(image.monthly)}


def _row(place: Place, image: Image) -> tuple[str, ...]:
    from orchestrator.core.units import format_duration, format_usd

    age = format_duration(datetime.now(UTC) - image.created)
    month = f"up to {format_usd(image.monthly)} a month"
    where = f"[{place.cloud} {place.settings.region}]"
    return image.name, image.image_id, image.digest[:DIGITS], age, f"{image.size_gib} GiB", month, where


def _show(rows: list[tuple[str, ...]]) -> None:
    rows = [("NAME", "IMAGE", "RECIPE", "AGE", "SIZE", "COST", "CLOUD"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _progress(line: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S}  {line}", err=True)
