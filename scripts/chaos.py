"""A run on the real sandbox under random faults for some minutes: what each kind cost, and what is true in the end.

Ends with 0 when the answer is right, nothing was leaked and every dollar is in the bill; else with 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from orchestrator.sandbox import control
from scripts.chaos_audit import faults_of_answer, leaked_instances, leaked_resources, metered, unaccounted
from scripts.chaos_faults import FAULTS, strikes
from scripts.chaos_run import PATIENCE, Chaos, Seen
from tests.e2e.sandbox_world import World


def audit(chaos: Chaos) -> dict[str, Any]:
    """Return what is true once the run has ended."""
    status, ec2 = control.status(chaos.world.home), chaos.world.client("ec2")
    bill = chaos.world.json("cost", chaos.run_id)
    ended = [item for item in status["instances"] if item["end_time"] is not None]
    billed = {line["instance_id"]: Decimal(line["usd"]) for line in bill["instances"]}
    missing, surplus = unaccounted(billed, metered(ec2, ended))
    lines = chaos.lines()
    return {
        "wrong": faults_of_answer(lines, chaos.nodes),
        "steps": max((line["step"] for line in lines), default=0),
        "generations": chaos.generation(),
        "resumed": chaos.resumed,
        "instances": len(status["instances"]),
        "leaked_instances": leaked_instances(status),
        "leaked_resources": leaked_resources(ec2),
        "orphans": chaos.world.json("gc", "--dry-run")["orphans"] if not leaked_instances(status) else ["see above"],
        "billed_usd": str(sum(billed.values(), Decimal(0))),
        "unaccounted_usd": str(missing),
        "billed_not_spent_usd": str(surplus),
    }


def rows(seen: list[Seen]) -> Iterator[str]:
    """Yield the table: for each kind of fault how often, and medians (worst) of what was seen."""
    yield f"{'FAULT':<22} {'TIMES':>5} {'DETECTED s':>16} {'TRAINS AGAIN s':>16} {'PAUSE s':>16} {'STEPS LOST':>12}"
    for name in sorted({item.fault for item in seen}):
        mine = [item for item in seen if item.fault == name]
        figures = [
            _middle([item.detected for item in mine if item.detected is not None]),
            _middle([item.trains for item in mine if item.trains]),
            _middle([item.pause for item in mine]),
        ]
        lost = [item.lost for item in mine]
        yield (
            f"{name:<22} {len(mine):>5} "
            + " ".join(f"{text:>16}" for text in figures)
            + (f" {statistics.median(lost):>6.0f} ({max(lost)})")
        )


def _middle(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({max(values):.1f})" if values else "-"


def show(found: Mapping[str, Any], seen: list[Seen], good: bool) -> None:
    print("\n".join(rows(seen)))
    print("median (worst); DETECTED is when a recovery was decided, - where none was")
    never = [item.fault for item in seen if item.trains is None]
    if never:
        print(f"did not train again within {PATIENCE:.0f} s: {', '.join(never)}")
    for line in found["wrong"]:
        print(f"WRONG: {line}")
    print(
        f"{found['steps']} steps in {found['generations']} generations, {found['instances']} instances, "
        f"resumed by hand {found['resumed']} times"
    )
    print(
        f"leaked: {len(found['leaked_instances'])} instances, {len(found['leaked_resources'])} resources; "
        f"unaccounted: ${found['unaccounted_usd']} of ${found['billed_usd']} billed "
        f"(billed and not spent: ${found['billed_not_spent_usd']})"
    )
    print("the answer is right, nothing leaked, every dollar is in the bill" if good else "NOT as promised")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--strikes", type=int, default=10**6, help="end after so many faults")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), default=[])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    world = World()
    seen: list[Seen] = []
    try:
        chaos = Chaos(world, asked.nodes)
        if not chaos.train(1, 0.0, PATIENCE):
            sys.exit("the run never began to train")
        end = time.monotonic() + 60 * asked.minutes
        for strike in strikes(asked.seed, asked.nodes, asked.only):
            if time.monotonic() > end or len(seen) >= asked.strikes:
                break
            one = chaos.strike(strike)
            if one is not None:
                seen.append(one)
                print(f"  {one}", file=sys.stderr, flush=True)
        ended = chaos.finish()
        found = audit(chaos) | {"ended": ended, "seed": asked.seed, "minutes": asked.minutes}
    finally:
        world.close()
    good = ended and not any(found[key] for key in ("wrong", "leaked_instances", "leaked_resources", "orphans"))
    good = good and Decimal(found["unaccounted_usd"]) == 0 and all(item.trains is not None for item in seen)
    if asked.json:
        print(json.dumps(found | {"good": good, "faults": [asdict(item) for item in seen]}, indent=2))
    else:
        show(found, seen, good)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
