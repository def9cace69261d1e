"""Building a machine image: a run that does the steps, an image of its machine, a run that checks it, publication.

Both are runs of one node like any other, with ledger, lease, timer, tmux session, logs in S3 and a bill. What a build
that is killed leaves carries the tag of its run: `orch gc` finds it, and lets it be while the build holds that run's
lease. May not publish what was not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator.aws.images import Images
from orchestrator.aws.own_images import OwnImages
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.images import Image, newest
from orchestrator.core.ledger import Verdict
from orchestrator.core.recipe import Recipe
from orchestrator.core.settings import Settings
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import counted
from orchestrator.errors import OrchError
from orchestrator.run.foreground import ForegroundScheduler, Log
from orchestrator.run.gc import find_orphans, remove
from orchestrator.run.home import Home
from orchestrator.run.image_builder import ImageBuilder
from orchestrator.run.lease import kept
from orchestrator.run.prepare import Prepared, Source, begin, prepare
from orchestrator.run.spec import load_spec
from orchestrator.run.spent import Spending, spending


@dataclass(frozen=True, slots=True)
class Wanted:
    """A recipe on one cloud: the id of its base, its digest, and the published image that makes a build needless."""

    recipe: Recipe
    base: str
    digest: str
    published: Image | None


@dataclass(frozen=True, slots=True)
class Plans:
    """The two runs of a build, planned and priced before either begins."""

    build: Prepared
    check: Prepared


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a build ended: `verdict` is that of the last of `runs` (ids); `image` is None unless it was published.

    `removed` are older images of the recipe that went, `in_use` those that machines still run on.
    """

    verdict: Verdict
    runs: tuple[str, ...]
    image: Image | None = None
    removed: tuple[Image, ...] = ()
    in_use: tuple[Image, ...] = ()


def look_up(recipe: Recipe, session: Session) -> Wanted:
    """Return what there is of a recipe. Raises NotFound (no such base), NoPermission, Unreachable."""
    base = Images(session).resolve(recipe.base)
    digest = recipe.digest(base)
    return Wanted(recipe, base, digest, newest(OwnImages(session).published(recipe.name), recipe.name, digest))


def plan_build(wanted: Wanted, source: Source, session: Session, settings: Settings) -> Plans:
    """Plan both runs; changes nothing. Raises NoCapacity (nothing to build or to check on), NoPermission, NotFound."""
    recipe = wanted.recipe
    build = prepare(recipe.build(wanted.base), source, session, settings, environ={})
    # The image to be does not exist yet; what its check costs and needs does not depend on it.
    check = prepare(recipe.check(wanted.base), source, session, settings, environ={})
    return Plans(replace(build, prelude=recipe.bootstrap, recipe=wanted.digest), replace(check, recipe=wanted.digest))


def build_image(wanted: Wanted, plans: Plans, session: Session, home: Home, log: Log) -> Outcome:
    """Build, check and publish. Whatever ends it before that, no image of it is left, unless this process is killed.

    What builds of the same recipe left that were killed is removed before: nothing of it could be gone on with.
    Raises OrchError, and KeyboardInterrupt once nothing is left.
    """
    bucket = Bucket(session, plans.build.bucket)
    remove_dead(session, bucket, lambda spec: spec.recipe == wanted.digest, log)
    with spending(session, bucket, log) as spent:
        outcome = _build(wanted, plans, session, home, log, spent)
        spent.done = outcome.image is not None
    return outcome


def _build(  # noqa: PLR0917 - all that a run is made of
    wanted: Wanted, plans: Plans, session: Session, home: Home, log: Log, spent: Spending
) -> Outcome:
    bucket, own = Bucket(session, plans.build.bucket), OwnImages(session)
    run = begin_build(plans.build, session, home, log, spent)
    builder = ImageBuilder(session, bucket, home, run, log)
    verdict = builder.to_the_end()
    with kept(builder.lease, bucket.server_time):
        image = own.of_run(run)
        if image is None or verdict.kind != "finished":
            _remove(own, image)
            return Outcome(verdict, (run,))
        try:
            log(f"checking {image.image_id} on a machine that boots from it")
            checked, verdict = _check(wanted, plans, image, session, home, log, spent)
            if verdict.kind == "finished":
                own.publish(image, wanted.recipe.name)
        except BaseException:
            _remove(own, image)
            raise
        if verdict.kind != "finished":
            _remove(own, image)
            log(f"removed {image.image_id}: its check failed")
            return Outcome(verdict, (run, checked))
    log(f"published {image.image_id} as {wanted.recipe.name}")
    removed, in_use = _remove_older(own, image, wanted.recipe.name, log)
    return Outcome(verdict, (run, checked), replace(image, name=wanted.recipe.name), removed, in_use)


def remove_dead(session: Session, bucket: Bucket, builds: Callable[[RunSpec], bool], log: Log) -> None:
    """Remove what killed runs left that `builds` tells, as `orch gc` would; what somebody looks after is let be."""
    orphans = find_orphans(session, bucket)
    runs = sorted(run for run in {item.run for item in orphans} if _is(bucket, run, builds))
    if not runs:
        return
    log(f"{', '.join(runs)} built the same and was killed: removing what it left, and beginning anew")
    if left := remove(session, bucket, [item for item in orphans if item.run in runs], log):
        log(f"{counted(len(left), 'thing')} could not be removed yet; `orch gc` removes the rest")


def _is(bucket: Bucket, run: str, builds: Callable[[RunSpec], bool]) -> bool:
    try:
        return builds(load_spec(bucket, run))
    except OrchError:
        return False


def _check(  # noqa: PLR0917 - all that a run is made of
    wanted: Wanted, plans: Plans, image: Image, session: Session, home: Home, log: Log, spent: Spending
) -> tuple[str, Verdict]:
    """Do the checks on a machine that boots from an image; return the id of that run and how it ended."""
    experiment = wanted.recipe.check(image.image_id)
    run = begin_build(replace(plans.check, experiment=experiment, image=image.image_id), session, home, log, spent)
    bucket = Bucket(session, plans.check.bucket)
    return run, ForegroundScheduler(session, bucket, home, run, log).to_the_end()


def begin_build(prepared: Prepared, session: Session, home: Home, log: Log, spent: Spending) -> str:
    """Begin a run as any other, and note it in `spent`; return its id."""
    run = begin(prepared, session, home, name=None, now=datetime.now(UTC), on_progress=log).run_id
    spent.runs.append(run)
    log(f"run {run}; `orch attach {run}` shows its terminal")
    return run


def _remove(own: OwnImages, image: Image | None) -> None:
    if image is not None:
        own.remove(image)


def _remove_older(own: OwnImages, image: Image, name: str, log: Log) -> tuple[tuple[Image, ...], tuple[Image, ...]]:
    """Remove what the new image replaces; return what went, and what stays since machines run on it."""
    removed: list[Image] = []
    in_use: list[Image] = []
    for old in own.published(name):
        if old.image_id == image.image_id:
            continue
        if own.users(old):
            in_use.append(old)
            log(f"kept {old.image_id}: machines run on it, and may have to be replaced; `orch ami rm` removes it later")
            continue
        own.remove(old)
        removed.append(old)
        log(f"removed {old.image_id}, the {name} before")
    return tuple(removed), tuple(in_use)
