"""Making the EBS snapshot of a data set: a run of one cheap machine fills a volume, of which a snapshot is published.

It is a run like any other, with ledger, lease, timer, tmux session, logs in S3 and a bill. What a build that is killed
leaves carries the tag of its run: `orch gc` finds it. May not publish what was not read back and found right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.snapshots import Snapshots
from orchestrator.core.experiment import Experiment
from orchestrator.core.ledger import Verdict
from orchestrator.core.settings import Settings
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import MicroUSD, format_size, usd
from orchestrator.core.volumes import DataVolume, Snapshot, newest, size_for
from orchestrator.errors import BadInput
from orchestrator.run import ubuntu
from orchestrator.run.builds import Build, building
from orchestrator.run.datasets import Dataset
from orchestrator.run.foreground import Log
from orchestrator.run.home import Home
from orchestrator.run.lease import kept
from orchestrator.run.prepare import Prepared, Source, prepare
from orchestrator.run.read import open_runs
from orchestrator.run.snapshot_builder import SnapshotBuilder

# Any of them reads S3 and writes EBS at some 80 MB/s for hours, and costs a few cents an hour on the spot market.
TYPES = ("m5.large", "c5.large", "m5.xlarge", "c5.xlarge")
# Bytes a second that a build is sure to do, reading back and the snapshot included.
SLOWEST = 15e6
SHORTEST = timedelta(hours=2)
LONGEST = timedelta(days=5)
LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a build ended: `snapshot` is None unless it was published, `removed` are older ones of the same version."""

    verdict: Verdict
    run: str
    snapshot: Snapshot | None = None
    removed: tuple[Snapshot, ...] = ()


def look_up(item: Dataset, session: Session) -> Snapshot | None:
    """Return the published snapshot of a data set that makes a build needless. Raises NoPermission, Unreachable."""
    found = newest(Snapshots(session).published(item.name), item.name, item.version)
    return found if found is not None and found.state == "completed" else None


def plan_build(  # noqa: PLR0917 - all that a plan is made of
    item: Dataset, source: Source, session: Session, settings: Settings, types: Sequence[str], cap: MicroUSD | None
) -> Prepared:
    """Plan the run on one of `types`; changes nothing. Raises BadInput, NoCapacity, NoPermission, NotFound.

    `cap` (micro-dollars, None for none) is the run's `max_cost`.
    """
    if item.manifest is None:
        raise BadInput(f"{item.reference} is not finished", "`orch dataset build` with the same source completes it")
    volume = DataVolume(item.name, "", item.version, size_for(item.manifest.files), item.size)
    prepared = prepare(
        _experiment(item, settings, types, cap),
        source,
        session,
        settings,
        environ={},
        volumes=(volume,),
        written=False,
    )
    made = f"a snapshot of {item.reference}, which stays"
    return replace(prepared, prelude=ubuntu.prelude(), will_create=(*prepared.will_create, made))


def _experiment(item: Dataset, settings: Settings, types: Sequence[str], cap: MicroUSD | None) -> Experiment:
    longest = min(max(SHORTEST, timedelta(seconds=round(item.size / SLOWEST))), LONGEST)
    return Experiment.model_validate(
        {
            "name": f"snapshot-{item.name}"[:LONGEST_NAME],
            "resources": {
                "any_of": [{"instance_type": name} for name in types],
                "image": settings.image or ubuntu.IMAGE,
                "disk_size": 8,
            },
            "device": "cpu",
            "procs_per_node": 1,
            "data": {item.name: {"source": item.url, "mode": "stage", "wait": "all"}},
            # The staging has done it all: made the file system, filled it, read it back and let go of it.
            "run": "echo 'orch: the volume is ready for its snapshot'",
            "max_duration": longest,
            "max_cost": None if cap is None else usd(cap),
            "preflight": "off",
            "retries": 0,
            "checkpoint_grace": timedelta(seconds=5),
        }
    )


def build_snapshot(item: Dataset, prepared: Prepared, session: Session, home: Home, log: Log) -> Outcome:
    """Make the snapshot and publish it. Whatever ends it before that, none is left, unless this process is killed.

    What killed builds of the same version left is removed before. Raises OrchError, and KeyboardInterrupt once nothing
    is left.
    """

    def same(spec: RunSpec) -> bool:
        return spec.is_snapshot_build and spec.volumes[0].label == item.version

    with building(session, Bucket(session, prepared.bucket), home, log, same) as build:
        outcome = _build(item, prepared, build)
        build.done = outcome.snapshot is not None
    return outcome


def _build(item: Dataset, prepared: Prepared, build: Build) -> Outcome:
    snapshots = Snapshots(build.session)
    run = build.begin(prepared)
    published: Snapshot | None = None
    try:
        builder = SnapshotBuilder(build.session, build.bucket, build.home, run, build.log, item.version)
        verdict = builder.to_the_end()
        with kept(builder.lease, build.bucket.server_time):
            made = next(iter(snapshots.of_run(run)), None)
            if made is not None and verdict.kind == "finished":
                snapshots.publish(made, item.name)
                published = replace(made, name=item.name)
                build.log(f"published {made.snapshot_id} as {item.reference}, {format_size(made.bytes)}")
                return Outcome(verdict, run, published, _remove_older(snapshots, build.bucket, made, item, build.log))
    finally:
        _remove_unpublished(snapshots, run, published)
    return Outcome(verdict, run)


def _remove_unpublished(snapshots: Snapshots, run: str, published: Snapshot | None) -> None:
    """Remove what a build made and did not publish; EC2 may not show the name of `published` yet."""
    kept_id = "" if published is None else published.snapshot_id
    for made in snapshots.of_run(run):
        if not made.name and made.snapshot_id != kept_id:
            snapshots.remove(made)


def _users(snapshots: Snapshots, bucket: Bucket, old: Snapshot) -> tuple[str, ...]:
    """Return who needs a snapshot: volumes that are there (ids), and runs that have not ended, for nodes to come."""

    def needs(spec: RunSpec) -> bool:
        return any(volume.snapshot == old.snapshot_id for volume in spec.volumes)

    def may_need(spec: RunSpec) -> bool:
        return any(volume.label == old.version for volume in spec.volumes)

    return (*snapshots.users(old), *open_runs(bucket, needs, may_need))


def _remove_older(
    snapshots: Snapshots, bucket: Bucket, made: Snapshot, item: Dataset, log: Log
) -> tuple[Snapshot, ...]:
    """Remove what the new snapshot replaces: others of the same version, but those that are in use."""
    removed = []
    for old in snapshots.published(item.name):
        if old.version != item.version or old.snapshot_id == made.snapshot_id:
            continue
        if needed := _users(snapshots, bucket, old):
            log(
                f"kept {old.snapshot_id}: {', '.join(needed)} may need it again; "
                f"`orch dataset rm`, or another with --force, removes it later"
            )
            continue
        snapshots.remove(old)
        log(f"removed {old.snapshot_id}, the snapshot before")
        removed.append(old)
    return tuple(removed)
