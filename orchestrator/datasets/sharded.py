"""A data set that N nodes pack: the experiment whose run does it, and how that is known again.

The run is one like any other; what each node does is `agent.packing`, and what is left to do then is in `joining`.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator.agent.packing import Order as NodeOrder
from orchestrator.aws.s3 import Bucket
from orchestrator.core import dataset, ids
from orchestrator.core.dataset import Origin
from orchestrator.datasets.order import LABELS, PROCESSES, Order
from orchestrator.datasets.origin import Row, options_of
from orchestrator.errors import BadInput, OrchError
from orchestrator.run import ubuntu
from orchestrator.run.read import list_runs
from orchestrator.run.spec import load_spec

# Plain machines with fast networks; what is packed decides nothing of the data set.
TYPES = ("m5.4xlarge", "c5.4xlarge", "m6i.4xlarge", "c6i.4xlarge")
VCPUS = 16
# What Ubuntu's own image needs for it.
PRELUDE = ubuntu.prelude("pip")
# Of a run that packs, for its forecast: guesses, since a first run has no others to go by. A slow core, of which there
# is one for two vCPUs, shrinks 300 images a second, and half of the time goes into S3; tars are listed at 500 MB/s.
IMAGES_PER_VCPU = 75
TAR_BYTES_PER_SECOND = 500_000_000
BASE_SECONDS = 240
IMAGE_BYTES = 110_000  # of one in a tar, as ImageNet's are
DISK_GIB = 40
PROGRAM = "orchestrator.agent.packing"


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


def faults(order: Order) -> list[BadInput]:
    """Return why nodes cannot carry out an order, none where they can."""
    found = order.source_faults
    if not order.is_remote:
        found += [
            BadInput(
                f"{order.source} is not in S3, where nodes could read it",
                f"`aws s3 sync {order.source} s3://BUCKET/PREFIX` first, or leave out --nodes to pack it here",
            )
        ]
    if order.as_is:
        found += [BadInput("--as-is packs nothing, so there is nothing for nodes to do", "leave out --nodes")]
    return found


def look_at(order: Order, rows: Iterable[Row]) -> Found:
    """Return what there is to pack in a source with these files. Raises BadInput where it is packed already."""
    sizes = {name: size for name, size, _ in rows}
    if dataset.ABOUT in sizes:
        raise BadInput(f"{order.source} is packed already", "leave out --nodes: there is nothing for them to do")
    return Found(len(sizes), sum(sizes.values()), sum(size for name, size in sizes.items() if name.endswith(".tar")))


def labels_key(order: Order) -> tuple[str, bytes] | None:
    """Return key and content of the file of labels, None without one: nodes may read what lies beside their code."""
    if LABELS not in order.pairs:
        return None
    body = Path(order.pairs[LABELS]).read_bytes()
    return ids.bundle_key(hashlib.sha256(body).hexdigest()), body


def run_name(order: Order) -> str:
    """Return what the run is called that packs."""
    return f"build-{order.name}"[:40].rstrip("-")


def command(order: Order, origin: Origin) -> str:
    """Return the shell line that each node runs; by it the run of an order is known again, of a source as it is."""
    options = [word for pair in order.pairs.items() if pair[0] not in {LABELS, PROCESSES} for word in pair]
    labels = labels_key(order)
    words = [order.source, order.name, "--digest", origin.source]
    words += ["--labels", labels[0]] if labels else []
    words += [] if order.originals else ["--copies-only"]
    words += ["--", "--name", order.name, "--json", *options]
    agent = '"$HOME/orch/$ORCH_RUN_ID/bundle/agent"'
    return f"PYTHONPATH={agent} exec python3 -P -m {PROGRAM} {shlex.join(words)}"


def packing_of(line: str) -> tuple[Order, Origin] | None:
    """Return what the nodes of a run pack that run this shell line, None where they pack nothing.

    Of labels the origin has the digest, and the order nothing.
    """
    _, found, words = line.partition(f"-m {PROGRAM} ")
    if not found:
        return None
    source, *_ = split = shlex.split(words)
    given = NodeOrder.parse(split)
    arguments = given.options[given.options.index("--json") + 1 :]
    order = Order(
        name=given.name, source=source, as_is=False, originals=given.originals, arguments=arguments, home=Path()
    )
    labels = {LABELS: given.labels.rpartition("/")[2]} if given.labels else {}
    return order, Origin(given.digest, options_of(order.pairs | labels, as_is=False, originals=given.originals))


def experiment(order: Order, origin: Origin, found: Found, nodes: int, image: str | None) -> dict[str, Any]:
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
            "image": image or ubuntu.IMAGE,
            "disk_size": DISK_GIB + found.tars // 10 // 2**30,
        },
        "device": "cpu",
        "procs_per_node": 1,
        "setup": f"python3 -c 'import numpy, PIL' 2>/dev/null || {install}",
        "run": command(order, origin),
        "expected_duration": f"{BASE_SECONDS + round(work)}s",
        "preflight": "off",
        # What ends a packing ends it again: corrupt images, a source that changed, no memory.
        "retries": 0,
        # What is done lies in S3, so there is nothing to save.
        "checkpoint_grace": "5s",
        "profiles": {"sandbox": {"resources": {"instance_type": "m5.xlarge", "disk_size": 8}}},
    }


def earlier_run(order: Order, origin: Origin, bucket: Bucket) -> str | None:
    """Return the newest run that was launched for this order, of the source as it is, whatever became of it."""
    name, line = run_name(order), command(order, origin)
    for run in list_runs(bucket):
        if ids.run_name(run) == name:
            try:
                if load_spec(bucket, run).experiment.run == line:
                    return run
            except OrchError:
                continue
    return None
