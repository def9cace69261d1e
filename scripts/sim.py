"""Runs seeds of the simulator in one process a core. Ends with 1 if an invariant did not hold in one of them."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.sim.run import simulate
from tests.sim.thaw import thaw

BATCH = 50
SHOWN = 10


@dataclass
class Tally:
    """What a batch of seeds gave: `failures` are (seed, what did not hold)."""

    seeds: int = 0
    cpu: float = 0.0
    virtual: float = 0.0
    generations: int = 0
    fewest_nodes: int = 10**6
    shortest: float = float("inf")
    faults: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another batch."""
        self.fewest_nodes = min(self.fewest_nodes, other.fewest_nodes)
        self.shortest = min(self.shortest, other.shortest)
        for name in ("seeds", "cpu", "virtual", "generations", "faults", "verdicts", "passed_over", "failures"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def run_batch(seeds: Sequence[int]) -> Tally:
    """Run some seeds; whatever one of them raises is a failure of that seed."""
    tally, began = Tally(seeds=len(seeds)), time.process_time()
    for seed in seeds:
        try:
            outcome = simulate(seed)
        except Exception as error:
            tally.failures.append((seed, f"{type(error).__name__}: {error}"))
            continue
        tally.virtual += outcome.seconds
        tally.generations += outcome.generations
        tally.fewest_nodes = min(tally.fewest_nodes, outcome.nodes)
        tally.shortest = min(tally.shortest, outcome.seconds)
        tally.faults.update(outcome.faults)
        tally.passed_over.update(outcome.passed_over)
        tally.verdicts[outcome.verdict] += 1
    tally.cpu = time.process_time() - began
    return tally


def report(tally: Tally, seconds: float, cores: int) -> None:
    """Print what came of all seeds."""
    done = max(1, tally.seeds - len(tally.failures))
    print(f"{tally.seeds} seeds in {seconds:.0f} s on {cores} cores: {tally.seeds / seconds:.1f} a second, ", end="")
    print(f"{1000 * tally.cpu / tally.seeds:.1f} ms of CPU each")
    print(f"a seed: at least {tally.fewest_nodes} nodes and {tally.shortest / 60:.0f} virtual minutes ", end="")
    print(f"({tally.virtual / done / 60:.0f} on average), {tally.generations / done:.2f} generations, ", end="")
    print(f"{tally.faults.total() / done:.1f} faults")
    for title, counts in (("faults a seed", tally.faults), ("runs that ended", tally.verdicts)):
        print(f"{title}: " + ", ".join(f"{kind} {count / done:.3f}" for kind, count in counts.most_common()))
    for gap, count in tally.passed_over.items():
        print(f"passed over as a known gap, {gap!r}: {count} times")
    for seed, text in sorted(tally.failures)[:SHOWN]:
        print(f"FAILED seed {seed}: {text[:500]}")
    if tally.failures:
        print(f"{len(tally.failures)} seeds failed, the first is {min(tally.failures)[0]}")


def main() -> int:
    count, first = int(sys.argv[1]), int(sys.argv[2])
    cores = len(os.sched_getaffinity(0))
    batches = [range(at, min(at + BATCH, first + count)) for at in range(first, first + count, BATCH)]
    total, began = Tally(), time.monotonic()
    thaw()
    # The workers' collector need not look at what was imported, nor after every few objects.
    gc.freeze()
    gc.set_threshold(50_000)
    with ProcessPoolExecutor(cores) as pool:
        for tally in pool.map(run_batch, batches):
            total.add(tally)
            rate = total.seeds / (time.monotonic() - began)
            line = f"{total.seeds}/{count} seeds, {rate:.1f} a second, {len(total.failures)} failed"
            print(f"\r{line} ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    report(total, time.monotonic() - began, cores)
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
