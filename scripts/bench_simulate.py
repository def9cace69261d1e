"""How many replays a second of one core (all policies together), as a ratio to a bare loop over the same samples.

The floor looks at the capacity of one zone at every sample between start and end of every replay, and does nothing with
it. Traces are made up (three zones, eleven days, every five minutes) unless files are given: REPLAYS [TRACE ...].
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace

from orchestrator.core.outcomes import Summary
from orchestrator.core.policies import Job
from orchestrator.core.traces import Prices, Traces
from orchestrator.run.simulate import Simulation, draw_chances, policies_of, simulate
from orchestrator.run.traces import read_traces, trace_files

HOUR = 3600
NODES, SAMPLES = 16, 3247


def made_up() -> Traces:
    """Return zones that are mostly full or empty and change about every half hour."""
    draw = random.Random(0)  # noqa: S311 - repeatable, and guards nothing
    zones = []
    for _ in range(3):
        level, zone = 0, []
        for _ in range(SAMPLES):
            if draw.random() < 0.15:
                level = draw.choice([0, 0, 0, 5, 11, NODES, NODES, NODES])
            zone.append(level)
        zones.append(tuple(zone))
    return Traces(("a", "b", "c"), 300, tuple(zones))


def floor_seconds(simulation: Simulation, found: tuple[Summary, ...]) -> float:
    """Return the time of the bare loop, each replay as long as the mean of its policy."""
    gap, chances = simulation.traces.gap, draw_chances(simulation)
    zone = simulation.traces.capacity[0]
    started, full = time.process_time(), 0
    for _, summary in zip(policies_of(simulation), found, strict=True):
        length = round(summary.watched / gap)
        for chance in chances:
            first = chance.start // gap
            for nodes in zone[first : first + length]:
                if nodes >= NODES:
                    full += 1
    return time.process_time() - started


def main() -> None:
    count, faults = int(sys.argv[1]), list[str]()
    files = trace_files(sys.argv[2:], faults)
    traces = read_traces(files, faults) if sys.argv[2:] else made_up()
    if faults or traces is None:
        sys.exit("\n".join(faults))
    prices = Prices(traces.gap, tuple((1_000_000,) for _ in traces.zones), 3_060_000)
    for hours in (1, 6, 24, 48):
        job = Job(hours * HOUR, NODES, 150, 30, 60, 120, 0.1)
        horizon = min(traces.seconds // 2, max(24, 4 * hours) * HOUR)
        simulation = Simulation(job, traces, prices, NODES // 2, 2 * hours * HOUR, horizon, count, 0)
        simulate(replace(simulation, replays=10))
        started = time.process_time()
        found = simulate(simulation)
        spent = time.process_time() - started
        floor = floor_seconds(simulation, found)
        print(
            f"{hours:2d} h of work, {len(found)} policies and zones: {count / spent:.0f} replays/s "
            f"({60 * count / spent:,.0f} a minute); bare loop {count / floor:.0f} replays/s; ratio {spent / floor:.1f}"
        )


if __name__ == "__main__":
    main()
