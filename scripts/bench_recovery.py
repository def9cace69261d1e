"""How soon a gang of four trains again after a notice and after a kill, beside its own cold start in the same run.

Counted from the LaunchTime EC2 gives, to the first step of that start. Detection is from the kill to the recover entry.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.sandbox_world import World
from tests.e2e.stepping import launch, node_of, recoveries, seconds, steps, trains

ENDLESS = 99


def measure(world: World, name: str) -> None:
    """Run one gang through both, and print what was seen."""
    run_id = launch(world, name, last=ENDLESS)
    trains(world, run_id, 1, after=12)
    world.orch("sandbox", "interrupt", node_of(world, run_id, 2), "--after", "60")
    far = trains(world, run_id, 2)["metrics"]["step"]
    trains(world, run_id, 2, after=far + 12)
    victim, killed = node_of(world, run_id, 1), time.time()
    world.orch("sandbox", "kill", victim)
    trains(world, run_id, 3)
    born = sorted(item["LaunchTime"].timestamp() for item in world.instances(run_id))
    lines = steps(world, run_id)
    begun = {g: min(line["time"] for line in lines if line["generation"] == g) for g in (1, 2, 3)}
    cold, noticed, taken = begun[1] - born[0], begun[2] - born[4], begun[3] - born[5]
    found = seconds(recoveries(world, run_id)[1]["time"]) - killed
    print(
        f"{name}: cold start {cold:.2f} s; after a notice {noticed:.2f} s ({noticed / cold:.2f} x); "
        f"after a kill {taken:.2f} s ({taken / cold:.2f} x), found after {found:.2f} s"
    )
    world.orch("stop", "--detach", run_id)


def main() -> None:
    world = World()
    try:
        world.orch("sandbox", "up")
        for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
            measure(world, f"bench{number}")
    finally:
        world.close()


if __name__ == "__main__":
    main()
