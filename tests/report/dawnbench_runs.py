"""Runs with the progress lines of a training, for tests of what DAWNBench makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.core.ledger import Verdict
from orchestrator.run.view import RunView
from tests.report.views import ended

Lines = Sequence[Mapping[str, Any]]


def start(time: float, step: int = 0, **changes: Any) -> dict[str, Any]:
    about = {"recipe": "imagenet18", "model": "resnet50", "torch": "2.13.0", "precision": "bf16"}
    line = {"time": time, "event": "start", "step": step, "dataset": "imagenet", "classes": 1000, "world_size": 128}
    return line | {"run": about} | changes


def evaluation(time: float, epoch: float, top5: float, **changes: Any) -> dict[str, Any]:
    line = {
        "time": time,
        "event": "eval",
        "epoch": epoch,
        "step": round(100 * epoch),
        "top1": top5 - 17.0,
        "top5": top5,
    }
    return line | {"images": 50_000, "seconds": 20.0} | changes


def saved(time: float, step: int, seconds: float) -> dict[str, Any]:
    return {"time": time, "event": "checkpoint", "step": step, "checkpoint_step": step, "seconds": seconds}


THROUGH = (
    start(1000.0),
    {"time": 1100.0, "step": 50, "loss": 3.0},
    evaluation(1360.0, 1, 80.0),
    saved(1370.0, 100, 2.0),
    evaluation(1720.0, 2, 92.998),
    evaluation(2080.0, 3, 93.0),
    evaluation(2440.0, 4, 93.4),
)


def aws_run(lines: Lines = THROUGH, **metrics: Any) -> RunView:
    view = ended(Verdict("finished", "all 2 nodes finished"), **metrics)
    return replace(view, spec=replace(view.spec, cloud="aws"), history=tuple(lines))
