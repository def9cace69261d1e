"""How figures of a run are worded: training figures, dollars, stages of nodes. Pure.

The figures come from progress lines that any script may write, so nothing about their types is taken for granted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.bill import Bill
from orchestrator.core.gang import Gang
from orchestrator.core.units import format_duration, format_size, format_usd
from orchestrator.report.text import clean, percent, shorten
from orchestrator.run.view import NodeView, RunView

# The order in which a gang's stages are told: by how far along they are.
STAGES = (
    "unknown", "pending", "booting", "ready", "starting", "preflight", "staging", "setup", "running",
    "done", "stopped", "failed", "lost", "stopping", "shutting-down", "terminated",
)  # fmt: skip
# Shown in their own way, or not at all: what a training says of itself at its start does not change.
KNOWN = frozenset({
    "epoch", "epochs", "step", "steps", "loss", "top1", "top5", "images_per_second",
    "generation", "recipe", "scale", "dataset", "classes", "world_size",
})  # fmt: skip
OTHERS_SHOWN = 4
# A disk with less than this part of it left is told of: a training that finds no room for a checkpoint ends.
LOW = 0.05


def training(metrics: Mapping[str, Any]) -> str:
    """Return the newest figures in one line: `epoch 3/18 · step 120/400 · loss 1.234 · top-1 45.1% ...`."""
    parts = [_counted(metrics, "epoch", "epochs"), _counted(metrics, "step", "steps")]
    parts.append(_number(metrics, "loss", "loss {:.4g}"))
    parts.append(accuracy(metrics))
    parts.append(_number(metrics, "images_per_second", "{:,.0f} images/s"))
    others = [key for key in metrics if key not in KNOWN]
    parts += [f"{clean(str(key))} {_plain(metrics[key])}" for key in others[:OTHERS_SHOWN]]
    return " · ".join(part for part in parts if part)


def accuracy(metrics: Mapping[str, Any]) -> str:
    """Return top-1 and top-5 in percent, "" when neither is known."""
    parts = [_number(metrics, "top1", "top-1 {:.2f}%"), _number(metrics, "top5", "top-5 {:.2f}%")]
    return " · ".join(part for part in parts if part)


def _counted(metrics: Mapping[str, Any], name: str, total: str) -> str:
    if name not in metrics:
        return ""
    whole = f"/{_plain(metrics[total])}" if total in metrics else ""
    return f"{name} {_plain(metrics[name])}{whole}"


def _number(metrics: Mapping[str, Any], name: str, form: str) -> str:
    value = metrics.get(name)
    return form.format(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shorten(clean(str(value)), 24)


def losses(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the losses of progress lines in order."""
    found = [line.get("loss") for line in history]
    return [float(value) for value in found if isinstance(value, int | float) and not isinstance(value, bool)]


def dollars(bill: Bill) -> str:
    """Return what a run costs so far beside on-demand: `$1.23, on-demand $4.10, saving 70%`."""
    if not bill.instances:
        return "$0.00"
    saving = percent(bill.saving, bill.on_demand)
    return f"{format_usd(bill.high)}, on-demand {format_usd(bill.on_demand)}, saving {saving}"


def stage_counts(nodes: Sequence[NodeView]) -> list[tuple[str, int]]:
    """Return how many nodes are in each stage, the earliest stage first."""
    counts = Counter(node.stage for node in nodes)
    order = {stage: index for index, stage in enumerate(STAGES)}
    return sorted(counts.items(), key=lambda item: order.get(item[0], len(order)))


def staged(nodes: Sequence[NodeView]) -> str:
    """Return how far all nodes together are with their data, "" when none waits for any or still gets some."""
    busy = [node for node in nodes if is_staging(node)]
    if not busy:
        return ""
    total = sum(node.to_stage for node in nodes)
    text = f"data {percent(sum(node.staged for node in nodes), total)} of {format_size(total)}"
    return text + rate(sum(node.stage_rate for node in busy), max(map(seconds_left, busy)))


def is_staging(node: NodeView) -> bool:
    """Return whether data are on their way to a node, which may train on what it has meanwhile."""
    return node.stage in {"staging", "setup", "running"} and node.staged < node.to_stage


def seconds_left(node: NodeView) -> float:
    """Return how long the rest of a node's data takes at the rate up to now, 0 when that is not known."""
    return (node.to_stage - node.staged) / node.stage_rate if node.stage_rate else 0.0


def rate(bytes_per_second: float, left: float) -> str:
    """Return `, 2.0 GiB/s, 12s left`; "" before anything came."""
    return f", {format_size(bytes_per_second)}/s, {format_duration(left)} left" if bytes_per_second else ""


def where(view: RunView) -> str:
    """Return what the gang runs on: `16 x p3.16xlarge spot in us-east-1a`; before a launch, how many it will be.

    Of a mixed one: `3 spot + 1 on-demand x p3.16xlarge in us-east-1a`.
    """
    if view.ledger.offer is None:
        return view.spec.experiment.how_many("node")
    offer = view.spec.offers[view.ledger.offer]
    gang = Gang.of(view.ledger, view.facts)
    bought = Counter(item.lifecycle for item in gang.instances.values())
    if len(bought) > 1:
        parts = " + ".join(f"{count} {lifecycle}" for lifecycle, count in sorted(bought.items(), reverse=True))
        return f"{parts} x {offer.instance_type} in {offer.zone}"
    nodes = gang.size if view.ledger.manned else view.spec.num_nodes
    return f"{nodes} x {offer.instance_type} {offer.lifecycle} in {offer.zone}"


def low_disks(view: RunView) -> str:
    """Return on which nodes the disk is nearly full and what to do about it, "" when none is."""
    size = view.spec.experiment.resources.disk_size
    low = [node for node in view.nodes if node.disk_free is not None and node.disk_free < LOW * size * 2**30]
    if view.ended or not low:
        return ""
    least = min(low, key=lambda node: node.disk_free or 0)
    others = f" and {len(low) - 1} more" if len(low) > 1 else ""
    left = format_size(least.disk_free or 0)
    return (
        f"the disk of node {least.rank}{others} is nearly full ({left} of {size} GiB left): raise resources.disk_size"
    )
