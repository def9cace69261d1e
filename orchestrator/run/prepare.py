"""From an experiment to a run: every check first, all faults at once, before any money; then what a run needs is made.

`prepare` reads only; `begin` is the first thing that changes anything in the cloud.
"""

from __future__ import annotations

import getpass
import secrets as random
import socket
import string
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.aws import account
from orchestrator.aws.ec2 import Compute
from orchestrator.aws.images import Images
from orchestrator.aws.prices import Prices, within
from orchestrator.aws.quotas import Quotas
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core import catalog, ids
from orchestrator.core.dataset import ROOT
from orchestrator.core.experiment import Experiment
from orchestrator.core.forecast import HISTORY, Earlier
from orchestrator.core.plan import Market, Plan, make_plan, quota_code
from orchestrator.core.settings import Settings
from orchestrator.core.spec import Identity, RunSpec
from orchestrator.core.uniform import by_deadline
from orchestrator.core.units import format_duration, format_size, format_usd, iso
from orchestrator.core.volumes import DataVolume
from orchestrator.core.ways import Choice
from orchestrator.errors import BadInput, NoCapacity
from orchestrator.node.bundle import Bundle
from orchestrator.node.ssh import generate_key
from orchestrator.run import datasets, prices
from orchestrator.run.caller import caller_cidr
from orchestrator.run.earlier import find_earlier
from orchestrator.run.here import bundle_and_secrets
from orchestrator.run.home import CachedRun, Home
from orchestrator.run.sources import look
from orchestrator.run.volumes import Chosen, check_room, choose

DIFF_LIMIT = 200_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where the experiment came from: a file, or (path None) one that `orch` ships; `profile`: the overlay applied."""

    name: str
    path: Path | None
    profile: str | None = None

    @property
    def folder(self) -> Path:
        """The folder relative paths of the experiment start from."""
        return self.path.parent if self.path is not None else Path.cwd()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that could be launched as it is. `will_create` and `notes` are lines for the plan.

    `reads` are s3:// URLs that its nodes read by themselves, beside its `data`.
    """

    experiment: Experiment
    source: Source
    settings: Settings
    plan: Plan
    market: Market
    bundle: Bundle
    bucket: str
    image: str
    vpc: str
    secrets: Mapping[str, str]
    data_bytes: Mapping[str, int]
    will_create: tuple[str, ...]
    notes: tuple[str, ...]
    prelude: str = ""
    recipe: str = ""
    reads: tuple[str, ...] = ()
    volumes: tuple[DataVolume, ...] = ()
    choices: tuple[Choice, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as `orch plan --json` prints it."""
        return {
            "name": self.experiment.name,
            "num_nodes": self.plan.num_nodes,
            "min_nodes": self.experiment.min_nodes or self.plan.num_nodes,
            "cloud": self.settings.cloud,
            "region": self.settings.region,
            "image": self.image,
            "offers": [offer.to_json() for offer in self.plan.offers],
            "rejected": [{"what": what, "why": why} for what, why in self.plan.rejected],
            "quotas": [{name: getattr(q, name) for name in q.__slots__} for q in self.plan.quotas],
            "timer_seconds": round(self.plan.timer.total_seconds()),
            "data": [choice.to_json() for choice in self.choices],
            "will_create": list(self.will_create),
            "notes": list(self.notes),
        }


def prepare(
    experiment: Experiment,
    source: Source,
    session: Session,
    settings: Settings,
    *,
    environ: Mapping[str, str],
    home: Home | None = None,
    volumes: tuple[DataVolume, ...] = (),
    written: bool = True,
) -> Prepared:
    """Check everything and plan. Raises BadInput with all local faults before the first call to the cloud, then
    NoPermission, NotFound (image, data, network) or NoCapacity (nothing offered, no quota).

    With `home` the forecast learns from earlier runs, of its reports and of those in the bucket. `volumes` are blank
    ones that the run fills: then nothing is chosen of how data sets get onto nodes. Of an experiment that nobody has
    `written`, but a command, the notes name no keys."""
    bundle, secret_values = bundle_and_secrets(
        experiment, source.folder, environ, source=source.name, builtin=source.path is None
    )
    bucket_name = settings.bucket or ids.bucket_name(session.account(), settings.region)
    experiment = datasets.resolve(experiment, session, Bucket(session, bucket_name))
    compute = Compute(session)
    image = _image(experiment, settings, session)
    earlier = find_earlier(home, Bucket(session, bucket_name)) if home is not None else ()
    market = _market(experiment, session, compute, earlier)
    plan = make_plan(experiment, experiment.num_nodes, market, volumes)
    if not plan.offers:
        reasons = "; ".join(f"{what}: {why}" for what, why in plan.rejected)
        raise NoCapacity(
            f"nothing to launch {experiment.how_many('node')} on: {reasons}",
            "name other instance types, take another region, or ask AWS for the quota",
        )
    there = look(experiment, session, bucket_name)
    chosen = choose(experiment, there, plan) if not volumes else Chosen(experiment, volumes, ())
    if chosen.volumes != volumes:
        # Which ones there are was chosen for the plan's first offer; what they cost, each offer says.
        plan = make_plan(chosen.experiment, experiment.num_nodes, market, chosen.volumes)
    experiment, volumes = chosen.experiment, chosen.volumes
    apart = {volume.data for volume in volumes}
    data_bytes = {name: item.size for name, item in there.items() if name not in apart}
    check_room(experiment, data_bytes)
    return Prepared(
        experiment=experiment,
        source=source,
        settings=settings,
        plan=plan,
        market=market,
        bundle=bundle,
        bucket=bucket_name,
        image=image,
        vpc=compute.default_vpc(),
        secrets=secret_values,
        data_bytes=data_bytes,
        will_create=_will_create(session, bucket_name, experiment, volumes),
        notes=(
            *plan_notes(experiment, plan, data_bytes, {choice.data for choice in chosen.choices}, written=written),
            *chosen.notes,
            *efa_notes(plan, market),
            *_namesakes(experiment.name, compute),
        ),
        volumes=volumes,
        choices=chosen.choices,
    )


def _image(experiment: Experiment, settings: Settings, session: Session) -> str:
    wanted = experiment.resources.image or settings.image
    if wanted is None:
        raise BadInput(
            "resources.image is not set, and AWS has no default image for training",
            "`orch ami build volta` (V100) or `modern` makes one: then resources.image: volta (docs/images.md)",
        )
    return Images(session).resolve(wanted)


def _market(experiment: Experiment, session: Session, compute: Compute, earlier: tuple[Earlier, ...]) -> Market:
    types = list(dict.fromkeys(option.instance_type for option in experiment.resources.any_of))
    price_list = Prices(session)
    offerings = compute.zones_offering(types)
    offered = [name for name in types if offerings.get(name)]
    hardware, subnets = compute.hardware(offered), compute.subnets()
    now = datetime.now(UTC)
    codes = sorted({quota_code(name, life) for name in offered for life in ("spot", "on-demand")})
    return Market(
        offerings=offerings,
        spot=price_list.spot_history(offered, now - HISTORY, now) if offered else (),
        on_demand=price_list.on_demand(offered) if offered else {},
        quotas=Quotas(session).vcpus(codes) if codes else {},
        subnets={zone: subnet.id for zone, subnet in subnets.items()},
        vcpus={name: item.vcpus for name, item in hardware.items() if name not in catalog.TYPES},
        earlier=earlier,
        now=now,
        efa={name: item.efa for name, item in hardware.items()},
        private=frozenset(zone for zone, subnet in subnets.items() if not subnet.public),
    )


def _will_create(
    session: Session, bucket: str, experiment: Experiment, volumes: Iterable[DataVolume]
) -> tuple[str, ...]:
    lines = []
    if not account.bucket_exists(session, bucket):
        lines.append(f"bucket {bucket} (kept between runs)")
    if not account.node_role_exists(session):
        lines.append(f"IAM role and instance profile {account.NODE_ROLE} (kept between runs)")
    made = [
        f"{item.size_gib} GiB gp3{f' of {item.snapshot}' if item.snapshot else ', blank'} ({item.data})"
        for item in volumes
    ]
    disk = ", ".join([f"{experiment.resources.disk_size} GiB gp3", *made])
    machines = experiment.how_many("instance") + (", each" if experiment.num_nodes > 1 else "")
    lines.append(
        f"{machines} with {disk}; a key pair, a security group"
        + (", a placement group" if experiment.num_nodes > 1 else "")
        + " (gone when the run ends)"
    )
    return tuple(lines)


def plan_notes(
    experiment: Experiment,
    plan: Plan,
    data_bytes: Mapping[str, int],
    told: Collection[str] = (),
    *,
    written: bool = True,
) -> tuple[str, ...]:
    """Return what a plan's figures do not say by themselves; of data sets but those whose ways are `told` beside."""
    timer = format_duration(plan.timer)
    notes = [f"without a scheduler the nodes save and end the run after {timer}; nothing replaces nodes meanwhile"]
    notes += [
        f"data {name}: {format_size(size)} to every node" for name, size in data_bytes.items() if name not in told
    ]
    least, price = experiment.min_nodes, plan.offers[0].price
    if least is not None and least < plan.num_nodes:
        hour, part = format_usd(price * plan.num_nodes), format_usd(price * least)
        known, times = plan.forecast(0), plan.num_nodes / least
        longest = f"{times:.3g} times as long" if known is None else format_duration(known.hours[1] * times * 3600)
        # Each node has so many times the work to do, and no more to say to the others.
        notes.append(
            f"time and cost are those of {plan.num_nodes} nodes ({hour} an hour); {least} are enough ({part} an hour),"
            f" and take up to {longest} for the same work, which costs no more"
        )
    dearest = max((o.price for o in plan.offers if o.lifecycle == "on-demand"), default=None)
    if dearest is not None and by_deadline(experiment, 0.0, timedelta()) is not None:
        hour = format_usd(dearest * plan.num_nodes)
        notes.append(f"without room on spot, and behind its max_duration, it buys on-demand, at up to {hour} an hour")
    size, types = sum(data_bytes.values()), dict.fromkeys(offer.instance_type for offer in plan.offers)
    on_disk = [name for name in types if data_bytes and not catalog.holds_in_memory(name, size)]
    if on_disk:
        notes.append(f"data go to the disk of {', '.join(on_disk)}: they would take more than half of its memory")
    if any(offer.hours is None for offer in plan.offers):
        why = "expected_duration is not set: costs shown are for the whole of max_duration"
        notes.append(f"{why if written else 'costs shown are for the longest that it may take'}, an upper bound")
    return tuple(notes)


def efa_notes(plan: Plan, market: Market) -> tuple[str, ...]:
    """Return a note for each type whose nodes get fewer EFA interfaces than it takes."""
    fewer = {
        o.instance_type: market.efa[o.instance_type] for o in plan.offers if 0 < o.efa < market.efa[o.instance_type]
    }
    return tuple(
        f"{name} gets 1 of its {most} EFA interfaces: with more EC2 gives no public address, which its subnet leads"
        " to S3 by (docs/aws.md)"
        for name, most in fewer.items()
    )


def _namesakes(name: str, compute: Compute) -> tuple[str, ...]:
    """Return a note for each run of this name that has machines: what is launched twice is paid for twice."""
    alive = {item.tagged_run for item in compute.tagged_instances() if item.alive}
    same = sorted(run for run in alive if ids.is_run_id(run) and ids.run_name(run) == name)
    return tuple(f"{run} is of this name and has machines now; this will be another run beside it" for run in same)


def begin(
    prepared: Prepared,
    session: Session,
    home: Home,
    *,
    name: str | None,
    now: datetime,
    on_progress: Callable[[str], None] = lambda _: None,
) -> RunSpec:
    """Make bucket and role, upload the bundle, write `run.json`; nothing here costs more than a few S3 requests."""
    settings = prepared.settings
    experiment = prepared.experiment if name is None else prepared.experiment.model_copy(update={"name": name})
    suffix = "".join(random.choice(string.ascii_lowercase + string.digits) for _ in range(4))
    run_id = ids.run_id(experiment.name, now, suffix)
    account.ensure_bucket(session, prepared.bucket)
    # The nodes may read the data sets of their own bucket in any case.
    own = f"s3://{prepared.bucket}/{ROOT}"
    urls = [*(d.source for d in experiment.data.values()), *prepared.reads]
    sources = [url.split("/")[2] for url in urls if not url.startswith(own)]
    profile = account.ensure_node_role(session, prepared.bucket, sources)
    bucket = Bucket(session, prepared.bucket)
    key = ids.bundle_key(prepared.bundle.digest)
    if bucket.head(key) is None:
        on_progress(f"uploading the code bundle, {format_size(prepared.bundle.size)}")
        bucket.put(key, prepared.bundle.read())
    private, public = generate_key()
    home.keep_private_key(run_id, private)
    home.keep_secrets(run_id, prepared.secrets)
    spec = _spec(prepared, experiment, session, run_id, now, profile, public)
    # Of the history only what is in force: the run keeps what is charged.
    prices.save(bucket, run_id, within(prepared.market.spot, now, now))
    bucket.put(ids.Keys(run_id).spec, spec.to_json(), if_none_match=True)
    home.remember(CachedRun(run_id, settings.cloud, experiment.name, iso(now)))
    return spec


def _spec(  # noqa: PLR0917 - all that a spec is made of
    prepared: Prepared, experiment: Experiment, session: Session, run_id: str, now: datetime, profile: str, public: str
) -> RunSpec:
    settings = prepared.settings
    used = {offer.instance_type for offer in prepared.plan.offers}
    listed = {
        name: {"price": item.price, "source": item.source, "time": iso(item.time)}
        for name, item in prepared.market.on_demand.items()
        if name in used
    }
    return RunSpec(
        run_id=run_id,
        created=now,
        cloud=settings.cloud,
        region=settings.region,
        bucket=prepared.bucket,
        experiment=experiment,
        num_nodes=experiment.num_nodes,
        procs_per_node=experiment.procs(prepared.plan.offers[0].instance_type),
        offers=prepared.plan.offers,
        on_demand=listed,
        image=prepared.image,
        vpc=prepared.vpc,
        instance_profile=profile,
        ssh_cidr=settings.ssh_cidr or caller_cidr(settings.ssh_address, Compute(session).vpc_network()),
        ssh_user=settings.ssh_user,
        ssh_port=settings.ssh_port,
        ssh_address=settings.ssh_address,
        public_key=public,
        bundle=prepared.bundle.digest,
        timer=prepared.plan.timer,
        identity=identify(prepared.source.folder, session),
        profile=prepared.source.profile,
        data_bytes=prepared.data_bytes,
        prelude=prepared.prelude,
        volumes=prepared.volumes,
        recipe=prepared.recipe,
    )


def identify(folder: Path, session: Session) -> Identity:
    """Return who launches, and the git commit and diff of `folder` ("" outside a repository or without git)."""
    return Identity(
        getpass.getuser(),
        socket.gethostname(),
        session.caller(),
        _git(folder, "rev-parse", "HEAD").strip(),
        _git(folder, "diff", "HEAD")[:DIFF_LIMIT],
    )


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            check=True,
            timeout=timedelta(seconds=20).total_seconds(),
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")
