"""A data set that N nodes pack: the experiment whose run does it, and what is left to do when that has finished.

The run is one like any other; what each node does is `agent.packing`. The nodes write parts of files and the digests of
the whole below their run's prefix, and nothing else: putting the files together is copying within S3, done here with
the rights of whoever builds. Killed anywhere it can be done again.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator.aws.account import ensure_bucket
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.uploads import Uploads
from orchestrator.core import dataset, ids
from orchestrator.core.dataset import Manifest
from orchestrator.core.manifest import File
from orchestrator.core.parts import PartKeys, make_spans
from orchestrator.datasets.build import Built, Order, publish
from orchestrator.datasets.progress import Progress, Tally
from orchestrator.errors import BadInput, NotFound, OrchError
from orchestrator.run.datasets import remove_parts
from orchestrator.run.read import list_runs
from orchestrator.run.spec import load_spec

# Plain machines with fast networks; what is packed decides nothing of the data set.
TYPES = ("m5.4xlarge", "c5.4xlarge", "m6i.4xlarge", "c6i.4xlarge")
VCPUS = 16
UBUNTU = "ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
# What the agent needs on Ubuntu's own image (as in ami/volta.yaml).
PRELUDE = """\
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update -q
apt-get -o DPkg::Lock::Timeout=300 install -qy python3-boto3 python3-pip tmux
"""
# Of a run that packs, for its forecast: guesses, since a first run has no others to go by. A slow core, of which there
# is one for two vCPUs, shrinks 300 images a second, and half of the time goes into S3; tars are listed at 500 MB/s.
IMAGES_PER_VCPU = 75
TAR_BYTES_PER_SECOND = 500_000_000
BASE_SECONDS = 240
IMAGE_BYTES = 110_000  # of one in a tar, as ImageNet's are
DISK_GIB = 40
LABELS = "--val-labels"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a source: files and bytes, and the bytes of tars among them."""

    files: int
    size: int
    tars: int

    @property
    def images(self) -> int:
        """About how many images that is."""
        return self.files + self.tars // IMAGE_BYTES


def check(order: Order) -> None:
    """Raise BadInput for an order that nodes cannot carry out."""
    if not order.is_remote:
        raise BadInput(
            f"{order.source} is not in S3, where nodes could read it",
            f"`aws s3 sync {order.source} s3://BUCKET/PREFIX` first, or leave out --nodes to pack it here",
        )
    if order.as_is:
        raise BadInput("--as-is packs nothing, so there is nothing for nodes to do", "leave out --nodes")


def look_at(order: Order, session: Session) -> Found:
    """Return what there is to pack. Raises NotFound, and BadInput where it is packed already."""
    name, _, prefix = order.source.removeprefix("s3://").partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    items = {item.key.removeprefix(prefix): item.size for item in Bucket(session, name).list(prefix)}
    if not items:
        raise NotFound(f"nothing at {order.source}", "name an s3:// prefix with images or tars below it")
    if dataset.ABOUT in items:
        raise BadInput(f"{order.source} is packed already", "leave out --nodes: there is nothing for them to do")
    tars = sum(size for name, size in items.items() if name.endswith(".tar"))
    return Found(len(items), sum(items.values()), tars)


def labels_key(order: Order) -> tuple[str, bytes] | None:
    """Return key and content of the file of labels, None without one: nodes may read what lies beside their code."""
    pairs = dict(zip(order.arguments[::2], order.arguments[1::2], strict=True))
    if LABELS not in pairs:
        return None
    body = Path(pairs[LABELS]).read_bytes()
    return ids.bundle_key(hashlib.sha256(body).hexdigest()), body


def run_name(order: Order) -> str:
    """Return what the run is called that packs."""
    return f"build-{order.name}"[:40].rstrip("-")


def command(order: Order) -> str:
    """Return the shell line that each node runs; by it the run of an order is known again."""
    pairs = zip(order.arguments[::2], order.arguments[1::2], strict=True)
    options = [word for pair in pairs if pair[0] not in {LABELS, "--processes"} for word in pair]
    labels = labels_key(order)
    words = [order.source, order.name]
    words += ["--labels", labels[0]] if labels else []
    words += [] if order.originals else ["--copies-only"]
    words += ["--", "--name", order.name, "--json", *options]
    agent = '"$HOME/orch/$ORCH_RUN_ID/bundle/agent"'
    return f"PYTHONPATH={agent} exec python3 -P -m orchestrator.agent.packing {shlex.join(words)}"


def experiment(order: Order, found: Found, nodes: int, image: str | None) -> dict[str, Any]:
    """Return the experiment, in the form of its file; `image` is that of the settings, by default Ubuntu's own.

    Copies are JPEGs, and another Pillow may write others: the nodes have the one of this Python, where it has one.
    """
    try:
        pillow = f"pillow=={version('pillow')}"
    except PackageNotFoundError:
        pillow = "pillow>=11"
    install = f"sudo python3 -m pip install -q --break-system-packages 'numpy>=2,<3' '{pillow}'"
    work = found.images / (IMAGES_PER_VCPU * VCPUS * nodes) + found.tars / TAR_BYTES_PER_SECOND
    return {
        "name": run_name(order),
        "num_nodes": nodes,
        "resources": {
            "any_of": [{"instance_type": name} for name in TYPES],
            "image": image or UBUNTU,
            "disk_size": DISK_GIB + found.tars // 10 // 2**30,
        },
        "device": "cpu",
        "procs_per_node": 1,
        "setup": f"python3 -c 'import numpy, PIL' 2>/dev/null || {install}",
        "run": command(order),
        "expected_duration": f"{BASE_SECONDS + round(work)}s",
        "preflight": "off",
        # What ends a packing ends it again: corrupt images, a source that changed, no memory.
        "retries": 0,
        # What is done lies in S3, so there is nothing to save.
        "checkpoint_grace": "5s",
        "profiles": {"sandbox": {"resources": {"instance_type": "m5.xlarge", "disk_size": 8}}},
    }


def earlier_run(order: Order, bucket: Bucket) -> str | None:
    """Return the newest run that was launched for this order, whatever became of it."""
    name, line = run_name(order), command(order)
    for run in list_runs(bucket):
        if ids.run_name(run) == name:
            try:
                if load_spec(bucket, run).experiment.run == line:
                    return run
            except OrchError:
                continue
    return None


def is_packed(bucket: Bucket, run: str) -> bool:
    """Tell whether the nodes of a run have done all they do, and their parts wait to be put together."""
    return bucket.head(PartKeys(run).joined) is not None


def join(  # noqa: PLR0917 - what is joined, where, and who is told
    order: Order, run: str, session: Session, bucket: Bucket, now: datetime, progress: Progress
) -> Built:
    """Put the parts of a run together, write the manifest, and remove the parts. Raises OrchError."""
    keys, uploads = PartKeys(run), Uploads(session, bucket.name)
    pieces = keys.pieces((item.key, item.size) for item in bucket.list(keys.packed))
    found = json.loads(bucket.get(keys.joined))
    large = [File(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in found["files"]]
    wrong = [file.path for file in large if sum(size for _, size in pieces.get(file.path, ())) != file.size]
    if wrong:
        raise OrchError(f"parts of {wrong[0]} are missing at s3://{bucket.name}/{keys.packed}", "build it anew")
    small = {str(path): bucket.get(keys.small_file(path)) for path in found["small"]}
    files = [*large, *(File(path, len(body), hashlib.sha256(body).hexdigest()) for path, body in small.items())]
    phases = dataset.find_phases([file.path for file in files])
    files = [File(f.path, f.size, f.sha256, phases[f.path]) for f in sorted(files, key=lambda f: f.path)]
    manifest = Manifest(tuple(files), now, order.source)
    prefix = dataset.prefix(order.name, manifest.version)
    ensure_bucket(session, bucket.name)
    tally = Tally(progress, "joining", manifest.size)
    for file in large:
        sources, sizes = zip(*pieces[file.path], strict=True)
        uploads.join(prefix + file.path, sources, make_spans(sizes), tally.move)
    for path, body in small.items():
        bucket.put(prefix + path, body)
        tally.move(len(body))
    for left in uploads.pending(prefix):
        uploads.abort(left)
    made = publish(order.name, manifest, session, bucket)
    remove_parts(bucket, run)
    left_out = small.get(dataset.CORRUPT, b"").decode(errors="replace").splitlines()
    return Built(made, tally.moved, tally.kept, tuple(left_out))
