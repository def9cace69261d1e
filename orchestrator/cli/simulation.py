"""From what the user typed to a checked simulation: experiment, traces, prices, assumptions. All faults at once."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.cli.faults import faults_of
from orchestrator.cli.simulated_prices import given_prices, make_prices, planned_prices, refused, short_prices
from orchestrator.core.units import counted
from orchestrator.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.cli.experiment import Loaded
    from orchestrator.core.experiment import Experiment
    from orchestrator.core.policies import Job
    from orchestrator.core.traces import Prices, Traces
    from orchestrator.core.units import MicroUSD
    from orchestrator.run.simulate import Simulation
    from orchestrator.run.traces import TraceFile

# A replay is watched for so many times what on-demand needs, and at least a day, where nothing else is said; never for
# more than half of the traces, since starts are spread over what is left.
PATIENCE = 4
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for: `prices` says where they are from, `changes` what the cloud's profile changed."""

    name: str
    simulation: Simulation
    files: tuple[TraceFile, ...]
    prices: str
    changes: tuple[str, ...]


def prepare_simulation(text: str, cloud: str | None, given: dict[str, Any]) -> Wanted:
    """Return what to replay.

    Raises BadInput with every fault of options and files at once, and what planning raises where its prices are used.
    """
    faults: list[str] = []
    right = _check(text, cloud, given, faults)
    if right is None:
        raise refused(faults)
    ratio = 1.0
    if right.planned:
        prices, source, ratio = planned_prices(text, cloud, right.given, right.traces)
    else:
        prices, source = make_prices(right.traces, right.known, right.given, right.gap)
    experiment = right.loaded.experiment
    job = _job(experiment, ratio, right.times, right.given)
    simulation = _simulation(job, right.traces, prices, right.times, right.given)
    return Wanted(experiment.name, simulation, right.files, source, right.loaded.changes)


def simulation_faults(params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a simulation beside the words of its line, for `AllFaults`. Asks no cloud."""
    given = {name: value for name, value in params.items() if name not in {"experiment", "cloud", "as_json"}}
    faults: list[str] = []
    _check(params["experiment"], params["cloud"], given, faults)
    return faults


@dataclass(frozen=True, slots=True)
class _Right:
    """What was given, read and found right: `known` are the prices by zone, one each `gap` seconds; `times` seconds."""

    loaded: Loaded
    files: tuple[TraceFile, ...]
    traces: Traces
    times: dict[str, int | None]
    known: dict[str, tuple[MicroUSD, ...]]
    gap: int
    planned: bool
    given: dict[str, Any]


def _check(text: str | None, cloud: str | None, given: dict[str, Any], faults: list[str]) -> _Right | None:
    """Read everything that is given, `text` None where no experiment is; or append every fault and return None."""
    from orchestrator.run.traces import read_traces, trace_files

    planned = not (given["prices"] or given["flat"] or given["on_demand_price"])
    loaded = None if text is None else _load(text, cloud, given, faults, planned=planned)
    experiment = None if loaded is None else loaded.experiment
    given = given | {"min_nodes": given["min_nodes"] or (experiment and experiment.min_nodes)}
    files = trace_files(given["traces"], faults)
    traces = read_traces(files, faults)
    times = {
        name: _seconds(f"--{name.replace('_', '-')}", given[name], faults, zero=name in {"boot", "restart", "notice"})
        for name in ("boot", "restart", "checkpoint_every", "notice", "deadline", "horizon", "price_gap")
    }
    known = given_prices(files, given, faults)
    if not planned and given["on_demand_price"] is None:
        faults.append("--on-demand-price is missing: it is what spot is compared with")
    gap = times["price_gap"] or (traces.gap if traces is not None else 0)
    if traces is not None:
        faults.extend(short_prices(given["prices"], known, gap, traces))
    faults.extend(_misfits(experiment, traces, times, given))
    if faults or traces is None or loaded is None:
        return None
    return _Right(loaded, files, traces, times, known, gap, planned, given)


def _load(text: str, cloud: str | None, given: dict[str, Any], faults: list[str], *, planned: bool) -> Loaded | None:
    """Return the experiment, or None and its faults. One that is planned needs its secrets and its folder."""
    from orchestrator.cli.context import open_home, wanted
    from orchestrator.cli.experiment import load_experiment

    try:
        return load_experiment(text, wanted(open_home(), cloud), given, environ=os.environ if planned else None)
    except BadInput as error:
        faults.extend(faults_of(error))
        return None


def _job(experiment: Experiment, ratio: float, times: dict[str, int | None], given: dict[str, Any]) -> Job:
    """Return the job; `ratio` is how long the machines priced take for what the first type listed does in a second."""
    from orchestrator.core.policies import Job

    return Job(
        work=max(1, round(_whole(experiment.expected_duration) * ratio)),
        nodes=experiment.num_nodes,
        boot=times["boot"] or 0,
        restart=times["restart"] or 0,
        checkpoint_every=times["checkpoint_every"] or 1,
        notice=times["notice"] or 0,
        unannounced=given["no_notice_share"],
        efficiency=given["efficiency"],
    )


def _simulation(
    job: Job, traces: Traces, prices: Prices, times: dict[str, int | None], given: dict[str, Any]
) -> Simulation:
    from orchestrator.core.policies import NAMES
    from orchestrator.run.simulate import Simulation

    usual = max(times["deadline"] or 0, min(traces.seconds // 2, max(DAY, PATIENCE * (job.boot + job.work))))
    return Simulation(
        job=job,
        traces=traces,
        prices=prices,
        least=given["min_nodes"] or (job.nodes + 1) // 2,
        deadline=times["deadline"],
        horizon=times["horizon"] or usual,
        replays=given["replays"],
        seed=given["seed"],
        policies=given["policies"] or NAMES,
    )


def _misfits(
    experiment: Experiment | None, traces: Traces | None, times: dict[str, int | None], given: dict[str, Any]
) -> list[str]:
    """Return what does not fit together: experiment, traces and options."""
    from orchestrator.core.units import format_duration

    faults = [] if experiment is None else _misfits_of(experiment, times, given)
    deadline, horizon = times["deadline"], times["horizon"]
    if math.isnan(given["efficiency"]) or math.isnan(given["no_notice_share"]):
        faults.append("--efficiency and --no-notice-share must be numbers")
    if deadline is not None and horizon is not None and horizon < deadline:
        faults.append("--horizon ends before --deadline")
    if "auto" in given["policies"] and deadline is None:
        faults.append("--policy auto needs --deadline")
    if traces is not None:
        most = max(max(zone) for zone in traces.capacity)
        if experiment is not None and most < (nodes := experiment.num_nodes):
            fewer = f"--nodes {most} or " if most else ""
            faults.append(f"no trace ever has {counted(nodes, 'node')}, {most} at most; give {fewer}other traces")
        if max(deadline or 0, horizon or 0) > traces.seconds:
            faults.append(f"the traces last {format_duration(traces.seconds)}, less than --horizon or --deadline")
    return faults


def _misfits_of(experiment: Experiment, times: dict[str, int | None], given: dict[str, Any]) -> list[str]:
    """Return what of the experiment does not fit the options."""
    from orchestrator.core.units import format_duration

    faults = []
    nodes, deadline = experiment.num_nodes, times["deadline"]
    if experiment.expected_duration is None:
        faults.append("the experiment has no expected_duration; give it there or with --set expected_duration=2h")
    elif deadline is not None and deadline < (least := _whole(experiment.expected_duration) + (times["boot"] or 0)):
        faults.append(f"--deadline is before on-demand could be done, {format_duration(least)} after the start")
    if given["min_nodes"] is not None and given["min_nodes"] > nodes:
        faults.append(f"--min-nodes {given['min_nodes']} is more than the {counted(nodes, 'node')} of the experiment")
    return faults


def _seconds(option: str, text: str | None, faults: list[str], *, zero: bool) -> int | None:
    """Return a duration in seconds; `zero` allows none at all."""
    from orchestrator.core.units import parse_duration

    if text is None or (zero and text in {"0", "0s"}):
        return None if text is None else 0
    try:
        return _whole(parse_duration(text))
    except ValueError as error:
        faults.append(f"{option}: {error}")
        return None


def _whole(value: Any) -> int:
    return int(value.total_seconds())
