"""The two files of a DAWNBench entry, and what they are called. Pure; the rules are in `report.dawnbench`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from orchestrator.core import catalog
from orchestrator.core.units import MicroUSD, usd
from orchestrator.report.dawnbench import Course, Task, cost_per_hour, instance_types, time_rule
from orchestrator.run.view import RunView

VERSION = "v1.0"
FRAMEWORK = "PyTorch"


@dataclass(frozen=True, slots=True)
class Author:
    """Who enters, and with what: `model` "" is the one the training names; `code` is a link to its source."""

    name: str
    email: str
    model: str = ""
    code: str = ""


def render_tsv(course: Course, task: Task) -> str:
    """Return the TSV: a header by task, then a row for each evaluation, accuracies from 0 to 100 as they were told."""
    lines = ["\t".join(("epoch", "hours", *task.columns))]
    for row in course.rows:
        scores = (str(row.scores[name]) for name in task.columns.values())  # rounding might lift one to the threshold
        lines.append("\t".join((f"{row.epoch:g}", f"{row.hours:.8f}", *scores)))
    return "\n".join(lines) + "\n"


def model_of(course: Course, author: Author) -> str:
    """Return the model's name: as given, else as the training names it, else ""."""
    about = course.start.get("run")
    return author.model or (str(about.get("model") or "") if isinstance(about, Mapping) else "")


def make_record(
    view: RunView, course: Course, task: Task, author: Author, *, log: str, ignore_eval: bool, today: date
) -> dict[str, Any]:
    """Return the entry's JSON. `log` is where its log lies; `today` the date of submission."""
    price = cost_per_hour(view)
    record: dict[str, Any] = {
        "version": VERSION,
        "author": author.name,
        "authorEmail": author.email,
        "framework": FRAMEWORK,
        "codeURL": author.code,
        "model": model_of(course, author),
        "hardware": _hardware(view),
        "costPerHour": _dollars(price[0]) if price else None,
        "timestamp": f"{today:%Y-%m-%d}",
        "logFilename": log,
        "commitHash": _commit(view, author),
    }
    counts = {row.images for row in course.rows}
    if task.name == "imagenet" and None not in counts:
        record["usedBlacklist"] = counts == {task.images[0]}
    optional = {"codeURL", "costPerHour", "commitHash"}
    record = {name: value for name, value in record.items() if value or name not in optional}
    return record | {"misc": _misc(view, course, ignore_eval=ignore_eval)}


def _misc(view: RunView, course: Course, *, ignore_eval: bool) -> dict[str, Any]:
    """Return what the format has no field for: how the time was taken, what spot cost, the training in short."""
    bill, price = view.bill, cost_per_hour(view)
    about = course.start.get("run")
    known = about if isinstance(about, Mapping) else {}
    training = {name: course.start.get(name) for name in ("epochs", "world_size")} | {
        name: known.get(name) for name in ("recipe", "scale", "seed", "precision", "parameters", "torch")
    }
    return {
        "run": view.spec.run_id,
        "time": time_rule(course, ignore_eval=ignore_eval),
        "starts": course.starts,
        "costPerHourSource": price[1] if price else "not known",
        "spotCost": _dollars(bill.high),
        "onDemandCost": _dollars(bill.on_demand),
        "saving": _dollars(bill.saving),
        "costsAreOf": "the whole run, from launch to termination, EBS volumes included",
        "uncommittedChanges": bool(view.spec.identity.diff),
        "training": {name: value for name, value in training.items() if value is not None},
    }


def file_stem(view: RunView, course: Course, author: Author) -> str:
    """Return `[author]_[model]_[hardware]_[framework]`: letters, digits and dashes between the underscores."""
    hardware = f"{view.spec.num_nodes}x-{'-'.join(instance_types(view))}"
    if view.spec.cloud == "sandbox":
        hardware += "-sandbox"
    return "_".join(tag(part) for part in (author.name, model_of(course, author), hardware, FRAMEWORK))


def tag(text: str) -> str:
    """Return `text` as it can stand in a file name, "" when nothing of it can."""
    return re.sub(r"[\W_]+", "-", text).strip("-").lower()


def _hardware(view: RunView) -> str:
    parts = []
    for name in instance_types(view):
        known = catalog.TYPES.get(name)
        gpus = f" ({known.gpus} {known.gpu} each)" if known is not None and known.gpus else ""
        parts.append(f"{view.spec.num_nodes} * {name}{gpus}")
    where = f"AWS {view.spec.region}" if view.spec.cloud == "aws" else "orch sandbox"
    return f"{', then '.join(parts)}, {where}"


def _commit(view: RunView, author: Author) -> str:
    """Return the commit that the link to the code names, else that of the workdir at launch."""
    linked = re.search(r"\b[0-9a-f]{40}\b", author.code)
    return linked[0] if linked else view.spec.identity.commit


def _dollars(amount: MicroUSD) -> float:
    return float(usd(amount))
