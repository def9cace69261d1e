"""A launch on the real sandbox whose scheduler gets SIGKILL before and after each of its effects, and is then resumed.

Which effects there are is taken from a run that is left alone, where they leave the scheduler's process (`crash_hook`).
After each kill `orch resume` is all that is done. Ends with 0 when every run finished with no instance beyond the plan,
nothing left behind, and a bill that agrees with the sandbox's own meter; else with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.core.units import counted

sys.path.insert(0, str(Path(__file__).parents[1]))

from orchestrator.sandbox import control
from scripts.chaos_audit import leaked_instances, leaked_resources
from scripts.crash_hook.sitecustomize import ENDED, KILLED
from tests.e2e.sandbox_world import World

HOOK = Path(__file__).with_name("crash_hook")
WAYS = ("before", "after")
PATIENCE = 300.0
ROUNDING = Decimal("0.000002")


@dataclass(frozen=True)
class Ended:
    """How a run ended whose scheduler was killed at `at` ("" for the one that was left alone), in dollars and machines.

    `killed` is whether it came to that. `wrong` says what is not as promised.
    """

    at: str
    run_id: str
    killed: bool
    phase: str
    instances: int
    metered: str
    billed: str
    wrong: tuple[str, ...]
    effects: tuple[str, ...]


@dataclass(frozen=True)
class Launch:
    """What every run is: so many nodes that train for so many seconds."""

    nodes: int
    seconds: float


def crash(world: World, launch: Launch, number: int, at: str) -> Ended:
    """Launch a run, have its scheduler killed at `at`, resume it, and return how it ended."""
    try:
        return _crash(world, launch, f"crash{number}", at)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return Ended(at, f"crash{number}", False, "?", 0, "?", "?", (str(error),), ())


def _crash(world: World, launch: Launch, name: str, at: str) -> Ended:
    file = world.home / f"{name}.effects"
    path = world.experiment(name, f"sleep {launch.seconds:g}", num_nodes=launch.nodes)
    seen = {"ORCH_CRASH_FILE": str(file), "ORCH_CRASH_AT": at}
    seen["PYTHONPATH"] = os.pathsep.join([str(HOOK), world.environment["PYTHONPATH"]])
    said = world.orch("launch", "--cloud", "sandbox", "-y", "--detach", "--json", path, env=seen).stdout
    run_id = str(json.loads(said)["run_id"])
    last = _last_word(file)
    if last == KILLED:
        world.orch("resume", run_id, check=None, timeout=PATIENCE)
    phase = str(world.json("status", run_id)[0]["phase"])
    wrong = [*([] if last else [f"neither killed nor ended within {PATIENCE:.0f} s"])]
    wrong += [] if phase == "finished" else [f"it is {phase}"]
    wrong += [] if f"runs/{run_id}/report.html" in world.keys(f"runs/{run_id}/report") else ["it has no page"]
    meter, bill = world.json("sandbox", "meter", run_id), world.json("cost", run_id)
    wrong += faults_of_bill(bill["instances"], meter["instances"], launch.nodes)
    billed = sum((Decimal(line["usd"]) for line in bill["instances"]), Decimal(0))
    effects = tuple(line for line in file.read_text().splitlines() if line not in {KILLED, ENDED})
    return Ended(
        at, run_id, last == KILLED, phase, len(meter["instances"]), meter["usd"], str(billed), tuple(wrong), effects
    )


def _last_word(file: Path) -> str | None:
    """Wait until the scheduler was killed or has ended; return which, None when it was neither in time."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        lines = file.read_text().splitlines() if file.exists() else []
        if lines and lines[-1] in {KILLED, ENDED}:
            return lines[-1]
        time.sleep(0.2)
    return None


def faults_of_bill(billed: Sequence[Any], metered: Sequence[Any], nodes: int) -> list[str]:
    """Return what is wrong with the lines of a bill beside what the meter saw of the same run: machines or dollars.

    A bill counts from the launch, the meter from when a machine ran, so the bill may be higher by the time between.
    """
    found = [] if len(metered) == nodes else [f"{counted(len(metered), 'instance')} for {counted(nodes, 'node')}"]
    found += [f"{row['instance_id']} has not ended" for row in metered if row["ended"] is None]
    lines = {line["instance_id"]: line for line in billed}
    found += [f"{name} is not in the bill" for name in sorted({row["instance_id"] for row in metered} - lines.keys())]
    for row in (row for row in metered if row["instance_id"] in lines):
        line, least = lines[row["instance_id"]], Decimal(row["usd"])
        pending = (datetime.fromisoformat(row["ran"]) - datetime.fromisoformat(row["launched"])).total_seconds()
        most = least + Decimal(line["hours"][0]["price_usd"]) * (Decimal(str(pending)) + 1) / 3600 + ROUNDING
        if not least <= Decimal(line["usd"]) <= most:
            found.append(f"{row['instance_id']} is billed ${line['usd']}, the meter shows ${least}")
    return found


def rows(ended: Sequence[Ended]) -> Iterator[str]:
    """Yield the table: for each effect what came of a kill before and after it."""
    yield f"{'KILLED AT':<37}{'BEFORE IT':<12}{'AFTER IT':<12}{'INSTANCES':<11}{'METER $':<20}BILL $"
    by_effect: dict[str, dict[str, Ended]] = {}
    for item in ended:
        how, _, effect = item.at.partition(" ")
        by_effect.setdefault(effect, {})[how] = item
    for effect, found in by_effect.items():
        both = [found[how] for how in WAYS if how in found]
        ends = "".join(f"{_end(found.get(how)):<12}" for how in WAYS)
        machines = " ".join(str(item.instances) for item in both)
        yield (
            f"{effect:<37}{ends}{machines:<11}"
            + " ".join(f"{item.metered:<9}" for item in both)
            + "  "
            + " ".join(item.billed for item in both)
        )


def _end(item: Ended | None) -> str:
    if item is None:
        return "-"
    return item.phase if item.killed else f"({item.phase})"


def left_behind(world: World) -> list[str]:
    """Return what is still there once all runs have ended, tagged or not."""
    found = leaked_instances(control.status(world.home)) + leaked_resources(world.client("ec2"))
    return found or [str(item) for item in world.json("gc", "--dry-run")["orphans"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of training; from a minute on they are in the bill")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="effects with this in their names")
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    world = World()
    try:
        control.up(world.home)
        launch = Launch(asked.nodes, asked.seconds)
        golden = crash(world, launch, 0, "")
        effects = [name for name in golden.effects if not asked.only or any(word in name for word in asked.only)]
        places = [f"{how} {effect}" for effect in effects for how in WAYS]
        print(f"{len(golden.effects)} effects, {len(places)} kills", file=sys.stderr, flush=True)
        with ThreadPoolExecutor(asked.parallel) as pool:
            ended = [golden]
            done = pool.map(partial(crash, world, launch), range(1, len(places) + 1), places)
            for item in done:
                ended.append(item)
                print(f"  {item.at}: {item.phase} {' '.join(item.wrong)}", file=sys.stderr, flush=True)
        left = left_behind(world)
    finally:
        world.close()
    wrong = [f"{item.at or 'left alone'} ({item.run_id}): {line}" for item in ended for line in item.wrong]
    wrong += [f"left behind: {item}" for item in left]
    if asked.json:
        print(json.dumps({"wrong": wrong, "runs": [asdict(item) for item in ended]}, indent=2))
    else:
        print("\n".join([*rows(ended[1:]), *wrong]))
        killed = sum(item.killed for item in ended)
        print(f"{killed} of {len(places)} kills came to pass; (in brackets: the run ended before)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
