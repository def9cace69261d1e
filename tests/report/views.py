"""Runs as readers see them, for tests of what is shown: made from plain values, no cloud."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console, RenderableType

from orchestrator.core.beacon import Beacon
from orchestrator.core.bill import make_bill
from orchestrator.core.facts import Facts, Instance, OnDemandPrice, PriceRow
from orchestrator.core.lasting import ended_at
from orchestrator.core.ledger import Verdict
from orchestrator.core.phase import find_phase
from orchestrator.core.volumes import DataVolume
from orchestrator.run.view import RunView
from tests.core.worlds import Book, at, beacon, facts, instance, spec

PRICES = (PriceRow("us-east-1a", "p3.16xlarge", at(-60), 7_344_000),)
VERSION = "0123456789abcdef"
LISTED = {"p3.16xlarge": OnDemandPrice("p3.16xlarge", 24_480_000, "price list", at(-60))}


def launched(num_nodes: int) -> Book:
    """Return the ledger of a run whose gang was launched at the first try."""
    return Book().tried(1, 0, "launched", ids=[f"i-{index}" for index in range(num_nodes)])


def view(
    book: Book,
    seen: Facts,
    *,
    num_nodes: int = 2,
    metrics: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    scheduler: str | None = "here (process 7)",
) -> RunView:
    """Return a run with this ledger, seen so."""
    state = book.state
    run = spec(num_nodes)
    return RunView(
        spec=run,
        ledger=state,
        facts=seen,
        phase=find_phase(state, seen),
        bill=make_bill(run.run_id, seen.instances, PRICES, LISTED, seen.server_time),
        metrics=metrics or {},
        history=tuple(history),
        scheduler=scheduler,
        ended_at=ended_at(state, seen.instances),
    )


def running(
    num_nodes: int = 2, seconds: float = 100, *, stage: Any = "running", scheduler: str | None = "here", **changes: Any
) -> RunView:
    """Return a run whose nodes all are in `stage`; `changes` go into every beacon but `metrics` and `history`."""
    metrics, history = changes.pop("metrics", None), changes.pop("history", ())
    nodes = [instance(index) for index in range(num_nodes)]
    said = [beacon(index, stage, seconds, **changes) for index in range(num_nodes)]
    seen = facts(seconds, nodes, said)
    return view(launched(num_nodes), seen, num_nodes=num_nodes, metrics=metrics, history=history, scheduler=scheduler)


def ended(verdict: Verdict, num_nodes: int = 2, seconds: float = 200, **metrics: Any) -> RunView:
    """Return a run that is closed with `verdict`, its instances terminated ten seconds before."""
    book = launched(num_nodes)
    book.add("intent", "end", seconds - 20, verdict=verdict.to_json())
    book.add("outcome", "close", seconds, generation=1)
    gone = [gone_instance(index, seconds - 10) for index in range(num_nodes)]
    said: list[Beacon] = []
    return view(book, facts(seconds, gone, said, resources=()), num_nodes=num_nodes, metrics=metrics, scheduler=None)


def building(view: RunView) -> RunView:
    """Return the run as one that builds the snapshot of a data set."""
    volumes = (DataVolume("flowers", "", VERSION, 155, 2**30),)
    return replace(view, spec=replace(view.spec, volumes=volumes))


def gone_instance(index: int, seconds: float, reason: str = "Client.UserInitiatedShutdown") -> Instance:
    """Return an instance that EC2 shows as terminated since `seconds`."""
    return instance(index, "terminated", end_time=at(seconds), end_reason=reason)


def drawn(shown: RenderableType, width: int = 120, height: int = 40) -> str:
    """Return what a terminal of that size would show, without colours."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, markup=False, highlight=False, emoji=False)
    console.print(shown)
    return stream.getvalue()
