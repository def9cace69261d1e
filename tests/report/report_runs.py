"""A run with an interruption and a replaced node, for tests of the page and of where the money went.

Four nodes launched at 12:00; EC2 takes i-2 at 1500 s; i-4 comes at 1560 s; all train again from 1800 s, from step 1000
of the 1200 that were done; the end is at 3660 s. The spot price changes twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.core.bill import make_bill
from orchestrator.core.facts import Instance, PriceRow
from orchestrator.core.lasting import ended_at
from orchestrator.core.ledger import Verdict
from orchestrator.core.spec import Identity
from orchestrator.run.view import RunView
from tests.core.worlds import T0, at, beacon, facts, instance
from tests.report.views import LISTED, ended

TAKEN = "Server.SpotInstanceTermination"
ROWS = (
    PriceRow("us-east-1a", "p3.16xlarge", at(-4000), 7_200_000),
    PriceRow("us-east-1a", "p3.16xlarge", at(1800), 9_000_000),
    PriceRow("us-east-1a", "p3.16xlarge", at(3000), 8_100_000),
    PriceRow("us-east-1b", "p3.16xlarge", at(-9000), 10_800_000),
    PriceRow("us-east-1b", "p3.16xlarge", at(900), 6_300_000),
)


def line(after: float, step: int, generation: int = 1, **figures: Any) -> dict[str, Any]:
    """Return a progress line, `after` seconds after the launch."""
    return {"time": T0.timestamp() + after, "step": step, "generation": generation} | figures


def history() -> list[dict[str, Any]]:
    """Return the lines of both starts: one each 60 s, 48 steps and half an epoch apart, with an evaluation an epoch."""
    lines = [line(300, 0, event="start", epoch=0)]
    for index in range(1, 21):
        lines += _progress(300 + 60 * index, 60 * index, 1)
    lines.append(line(1800, 1000, 2, event="start", epoch=1000 / 120))
    for index in range(1, 31):
        lines += _progress(1800 + 60 * index, 1000 + 60 * index, 2)
    return lines


def _progress(seconds: float, step: int, generation: int) -> list[dict[str, Any]]:
    lines = [line(seconds, step, generation, epoch=step / 120, loss=7.0 * 0.999**step)]
    if step % 120 in {0, 40}:
        top5 = 100 * (1 - 0.9985**step)
        lines.append(
            line(seconds, step, generation, event="eval", epoch=step / 120, top1=0.8 * top5, top5=top5, seconds=6.0)
        )
    return lines


def gang() -> list[Instance]:
    """Return the five instances the run had."""
    gone = [
        instance(index, "terminated", end_time=at(3660), end_reason="Client.UserInitiatedShutdown")
        for index in range(5)
    ]
    gone[2] = replace(gone[2], end_time=at(1500), end_reason=TAKEN)
    gone[4] = replace(gone[4], launch_time=at(1560), generation=2, launch_index=0)
    return gone


def told(
    nodes: Sequence[Instance],
    lines: Sequence[Mapping[str, Any]],
    *,
    rows: Sequence[PriceRow] = ROWS,
    seconds: float = 3700,
) -> RunView:
    """Return a run of these instances and lines, its diff and names full of markup."""
    view = ended(Verdict("finished", "all 4 nodes finished"), 4, seconds)
    said = [beacon(index, "running", 200, started=T0.timestamp() + 240) for index in range(4)]
    seen = facts(seconds, nodes, said, resources=())
    bill = make_bill(view.spec.run_id, nodes, rows, LISTED, seen.server_time)
    identity = Identity(
        "me", "here", commit="0123456789abcdef", diff="--- a/train.py\n+++ b/train.py\n-lr = 0.1\n+lr = 0.4\n"
    )
    spec = replace(view.spec, identity=identity)
    return replace(view, spec=spec, facts=seen, bill=bill, history=tuple(lines), ended_at=ended_at(view.ledger, nodes))


def interrupted_run() -> RunView:
    """Return the run that this module is about."""
    return told(gang(), history())
