"""Building a machine image: a run that does the steps, an image of its machine, a run that checks it, publication.

Both are runs of one node like any other, with ledger, lease, timer, tmux session, logs in S3 and a bill. What a build
that is killed leaves carries the tag of its run: `orch gc` finds it, and lets it be while the build holds that run's
lease. May not publish what was not checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from orchestrator.aws.images import Images
from orchestrator.aws.own_images import OwnImages
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.snapshots import Snapshots
from orchestrator.core.caps import cost_of_least_node
from orchestrator.core.experiment import Experiment
from orchestrator.core.images import Image, newest
from orchestrator.core.ledger import Verdict
from orchestrator.core.recipe import Recipe
from orchestrator.core.settings import Settings
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import MICRO, MicroUSD, format_usd
from orchestrator.errors import BadInput
from orchestrator.run.builds import Build, building
from orchestrator.run.foreground import ForegroundScheduler, Log
from orchestrator.run.home import Home
from orchestrator.run.image_builder import ImageBuilder
from orchestrator.run.lease import kept
from orchestrator.run.prepare import Prepared, Source, prepare
from orchestrator.run.read import open_runs, read_run

# What a run's max_cost is at least: one cent, as in experiment files.
LEAST_CAP: MicroUSD = MICRO // 100


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

    `removed` are older images of the recipe that went, `in_use` those that are in use.
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


def plan_build(
    wanted: Wanted, source: Source, session: Session, settings: Settings, cap: MicroUSD | None = None
) -> Plans:
    """Plan both runs; changes nothing. Raises NoCapacity (nothing to build or to check on), NoPermission, NotFound.

    `cap` (micro-dollars, None for none) is the `max_cost` of both together; the check gets what the build leaves of it.
    Raises BadInput for one that cannot pay the least of both.
    """
    recipe = wanted.recipe
    build = prepare(_capped(recipe.build(wanted.base), cap), source, session, settings, environ={}, written=False)
    # The image to be does not exist yet; what its check costs and needs does not depend on it.
    check = prepare(_capped(recipe.check(wanted.base), cap), source, session, settings, environ={}, written=False)
    least = _least(build) + max(_least(check), LEAST_CAP)
    if cap is not None and cap <= least:
        needed = format_usd((least // LEAST_CAP + 1) * LEAST_CAP)
        raise BadInput(
            f"--max-cost: {format_usd(cap)} is too little: an image is built and checked for {needed} at the least",
            "nothing was begun; most take more, as the plan without --max-cost shows",
        )
    return Plans(replace(build, prelude=recipe.bootstrap, recipe=wanted.digest), replace(check, recipe=wanted.digest))


def _least(prepared: Prepared) -> MicroUSD:
    return min(cost_of_least_node(prepared.experiment, offer) for offer in prepared.plan.offers)


def _capped(experiment: Experiment, cap: MicroUSD | None) -> Experiment:
    return experiment if cap is None else experiment.model_copy(update={"max_cost": Decimal(cap) / MICRO})


def build_image(wanted: Wanted, plans: Plans, session: Session, home: Home, log: Log) -> Outcome:
    """Build, check and publish. Whatever ends it before that, no image of it is left, unless this process is killed.

    What killed builds of the same recipe left is removed before. Raises OrchError, and KeyboardInterrupt once nothing
    is left.
    """
    bucket = Bucket(session, plans.build.bucket)
    with building(session, bucket, home, log, lambda spec: spec.recipe == wanted.digest) as build:
        outcome = _build(wanted, plans, build)
        build.done = outcome.image is not None
    return outcome


def _build(wanted: Wanted, plans: Plans, build: Build) -> Outcome:
    own, log = OwnImages(build.session), build.log
    run = build.begin(plans.build)
    try:
        builder = ImageBuilder(build.session, build.bucket, build.home, run, log)
        verdict = builder.to_the_end()
        image = own.of_run(run)
    except BaseException:
        _remove_made(build.session, run)
        raise
    with kept(builder.lease, build.bucket.server_time):
        if image is None or verdict.kind != "finished":
            _remove_made(build.session, run)
            return Outcome(verdict, (run,))
        try:
            log(f"checking {image.image_id} on a machine that boots from it")
            verdict = _check(wanted, plans, image, build)
            if verdict.kind == "finished":
                own.publish(image, wanted.recipe.name)
        except BaseException:
            own.remove(image)
            raise
        if verdict.kind != "finished":
            own.remove(image)
            log(f"removed {image.image_id}: {'its check failed' if verdict.kind == 'failed' else 'it was not checked'}")
            return Outcome(verdict, tuple(build.runs))
    log(f"published {image.image_id} as {wanted.recipe.name}")
    removed, in_use = _remove_older(own, build.bucket, replace(image, name=wanted.recipe.name), log)
    return Outcome(verdict, tuple(build.runs), replace(image, name=wanted.recipe.name), removed, in_use)


def _check(wanted: Wanted, plans: Plans, image: Image, build: Build) -> Verdict:
    """Do the checks on a machine that boots from an image, with what money is left; return how that ended."""
    built = read_run(build.session, build.bucket, build.runs[0])
    # The one in force: `orch extend` may have changed it since.
    experiment, cap = wanted.recipe.check(image.image_id), built.spec.experiment.max_cost_micro
    if cap is not None:
        left = cap_of_check(cap, built.bill.high)
        if isinstance(left, Verdict):
            return left
        experiment = _capped(experiment, left)
    run = build.begin(replace(plans.check, experiment=experiment, image=image.image_id))
    return ForegroundScheduler(build.session, build.bucket, build.home, run, build.log).to_the_end()


def cap_of_check(cap: MicroUSD, paid: MicroUSD) -> MicroUSD | Verdict:
    """Return what a build that was `paid` leaves of `cap` for the check, the build's verdict where that is nothing."""
    if cap - paid < LEAST_CAP:
        what = f"it cost {format_usd(paid)}, and max_cost of {format_usd(cap)} leaves nothing for the check"
        return Verdict("capped", what)
    return cap - paid


def _remove_made(session: Session, run: str) -> None:
    """Remove what EC2 has begun to make of a build's machine: an image may not show its snapshots yet."""
    own = OwnImages(session)
    if (image := own.of_run(run)) is not None:
        own.remove(image)
    snapshots = Snapshots(session)
    for made in snapshots.of_run(run):
        snapshots.remove(made)


def users(own: OwnImages, bucket: Bucket, image: Image) -> tuple[str, ...]:
    """Return who needs an image, for people: living machines with their runs, and runs that wait for machines."""

    def needs(spec: RunSpec) -> bool:
        return spec.image == image.image_id

    def may_need(spec: RunSpec) -> bool:
        return needs(spec) or spec.experiment.resources.image == image.name

    machines = own.users(image)
    waiting = [run for run in open_runs(bucket, needs, may_need) if run not in machines.values()]
    return (*(f"{run} ({instance})" if run else instance for instance, run in machines.items()), *waiting)


def _remove_older(
    own: OwnImages, bucket: Bucket, image: Image, log: Log
) -> tuple[tuple[Image, ...], tuple[Image, ...]]:
    """Remove what the new image replaces; return what went, and what stays since it is in use."""
    removed: list[Image] = []
    in_use: list[Image] = []
    for old in own.published(image.name):
        if old.image_id == image.image_id:
            continue
        if needed := users(own, bucket, old):
            in_use.append(old)
            log(f"kept {old.image_id}: {', '.join(needed)} may need it again; `orch ami rm` removes it later")
            continue
        own.remove(old)
        removed.append(old)
        log(f"removed {old.image_id}, the {image.name} before")
    return tuple(removed), tuple(in_use)
