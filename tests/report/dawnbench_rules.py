"""What DAWNBench itself asks of an entry, written down apart from the code that makes entries.

The checks of `tests/test_submissions.py` and the README of stanford-futuredata/dawn-bench-entries, without pandas.
"""

from __future__ import annotations

import csv
import json
import re
from datetime import datetime
from pathlib import Path

REQUIRED = {"version", "author", "authorEmail", "framework", "model", "hardware", "timestamp"}
TEXTS = REQUIRED | {"codeURL", "logFilename", "commitHash"}
COLUMNS = {
    "ImageNet": {"epoch", "hours", "top1Accuracy", "top5Accuracy"},
    "CIFAR10": {"epoch", "hours", "top1Accuracy"},
}
THRESHOLDS = {"ImageNet": ("top5Accuracy", 93.0), "CIFAR10": ("top1Accuracy", 94.0)}


def faults_of(tsv: Path) -> list[str]:
    """Return what is wrong with the entry whose TSV is `tsv`; its JSON lies beside it."""
    task = tsv.parent.parent.name
    found = [] if tsv.parent.name == "train" else ["not in a folder train/"]
    if not re.fullmatch(r"[^_]+_[^_]+_[^_]+_[^_]+\.tsv", tsv.name):
        found.append("not named [author]_[model]_[hardware]_[framework]")
    return found + _json_faults(tsv.with_suffix(".json"), task) + _tsv_faults(tsv, task)


def _json_faults(file: Path, task: str) -> list[str]:
    record = json.loads(file.read_text())
    found = [f"no {name}" for name in sorted(REQUIRED - record.keys())]
    found += [f"{name} is no text" for name in TEXTS & record.keys() if not isinstance(record[name], str)]
    datetime.strptime(record["timestamp"], "%Y-%m-%d")  # noqa: DTZ007 - a date
    if record["version"] != "v1.0":
        found.append("not version v1.0")
    if not isinstance(record.get("costPerHour", 1.0), float):
        found.append("costPerHour is no number")
    if not isinstance(record.get("misc", {}), dict):
        found.append("misc is no object")
    if task == "ImageNet" and not isinstance(record.get("usedBlacklist"), bool):
        found.append("usedBlacklist is not said")
    return found


def _tsv_faults(file: Path, task: str) -> list[str]:
    body = file.read_bytes().decode()
    found = ["carriage returns"] if "\r" in body else []
    rows = list(csv.DictReader(body.splitlines(), delimiter="\t"))
    if not rows or set(rows[0]) != COLUMNS[task]:
        return [*found, "wrong columns, or no rows"]
    numbers = {name: [float(row[name]) for row in rows] for name in COLUMNS[task]}
    hours = numbers["hours"]
    if hours != sorted(set(hours)) or hours[0] <= 0:
        found.append("hours do not rise")
    if not all(0 <= value <= 100 for name in numbers if name.startswith("top") for value in numbers[name]):
        found.append("accuracies are no percentages")
    column, threshold = THRESHOLDS[task]
    return found if max(numbers[column]) >= threshold else [*found, "below the threshold"]
