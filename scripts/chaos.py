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
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.beacon import Beacon
from orchestrator.core.ids import Keys, bucket_name
from orchestrator.errors import OrchError
from orchestrator.run.ledger import Ledger
from orchestrator.sandbox import control
from scripts.chaos_audit import faults_of_answer, leaked_instances, leaked_resources, metered, unaccounted
from scripts.chaos_faults import FAULTS, Strike, Target, strikes
from tests.e2e.sandbox_world import World

NAME = "chaos"
EVERY = 20  # steps between two checkpoints
STALL = 15  # seconds without a step that are taken for a failure
WATCH = 12.0  # seconds after a fault that the training may well never notice
PATIENCE = 300.0  # seconds until training again; more is a failure of chaos


@dataclass(frozen=True)
class Seen:
    """What a strike did: seconds until a recovery was decided and until a step was made again; steps done twice.

    `pause` is the longest time without a step. None: it did not come to that, or not in time (`trains`).
    """

    fault: str
    ranks: tuple[int, ...]
    detected: float | None
    trains: float | None
    pause: float
    lost: int
    resumed: int


class Chaos:
    """One run in its own sandbox, and the means to see it: the record of its steps, its ledger, its beacons."""

    def __init__(self, world: World, nodes: int) -> None:
        self.world, self.nodes = world, nodes
        self.enough, self.truth = world.home / "enough", world.home / "truth.jsonl"
        self.truth.touch()
        self.resumed = 0
        settings = control.up(world.home)
        session = Session(settings)
        self.bucket = Bucket(session, bucket_name(session.account(), settings.region))
        self.run_id = self._launch()
        self.ledger = Ledger(self.bucket, self.run_id, "chaos")

    def _launch(self) -> str:
        command = f"python3 chaos_training.py {self.enough} {self.truth} {EVERY}"
        keys = {"num_nodes": self.nodes, "max_duration": "6h", "checkpoint_grace": "15s", "retries": 9}
        kinds = [{"instance_type": name} for name in ("p3.16xlarge", "p3dn.24xlarge", "p4d.24xlarge")]
        resources = {"any_of": kinds, "disk_size": 8}
        file = Path(
            self.world.experiment(NAME, command, workdir=".", stall_timeout=f"{STALL}s", resources=resources, **keys)
        )
        (file.parent / "chaos_training.py").write_text(Path(__file__).with_name("chaos_training.py").read_text())
        said = self.world.orch("launch", "--cloud", "sandbox", "-y", "--detach", "--json", str(file)).stdout
        return str(json.loads(said)["run_id"])

    def lines(self) -> list[dict[str, Any]]:
        """Return the record of all steps, as rank 0 wrote it down; a line that is being written is left out."""
        whole = self.truth.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def generation(self) -> int:
        """Return the generation that made the last step, 0 before the first."""
        return max((int(line["generation"]) for line in self.lines()), default=0)

    def instances(self, ranks: tuple[int, ...]) -> list[str]:
        """Return who has these ranks in the newest generation that speaks."""
        alive = {i["instance_id"] for i in control.status(self.world.home)["instances"] if i["state"] == "running"}
        keys = Keys(self.run_id)
        said = []
        for instance in alive:
            try:
                said.append(Beacon.from_json(self.bucket.get(keys.beacon(instance))))
            except (OrchError, ValueError):
                continue
        newest = max((beacon.generation for beacon in said), default=0)
        named = {beacon.rank: beacon.instance_id for beacon in said if beacon.generation == newest}
        return [named[rank] for rank in ranks if rank in named]

    def look_after(self) -> None:
        """Do what a person would: resume a run that has ended too early, or that nobody schedules."""
        done = self.world.orch("status", self.run_id, "--json", check=None)
        row = json.loads(done.stdout)[0] if done.returncode == 0 else {"phase": "unknown", "message": done.stderr}
        ended = row["phase"] in {"failed", "interrupted", "no-capacity", "stopped", "capped"}
        if ended or row["phase"] == "unknown":
            print(f"  {row['phase']}: {row['message']}", file=sys.stderr, flush=True)
        if ended or not self.scheduled():
            self.resumed += ended
            self.world.orch("resume", self.run_id, "--detach", check=None)

    def scheduled(self) -> bool:
        """Tell whether a scheduler of this run lives."""
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
            except OSError:
                continue
            if b"schedule" in words and self.run_id.encode() in words:
                return True
        return False

    def train(self, generation: int, since: float, seconds: float) -> bool:
        """Wait for steps of at least this generation made after `since`; look after the run meanwhile."""
        end = time.monotonic() + seconds
        looked = time.monotonic()
        while time.monotonic() < end:
            steps = [line for line in self.lines() if line["generation"] >= generation and line["time"] > since]
            if len(steps) >= 3:
                return True
            if time.monotonic() > looked + 5:
                self.look_after()
                looked = time.monotonic()
            time.sleep(0.2)
        return False

    def strike(self, strike: Strike) -> Seen | None:
        """Strike once, watch until the training goes on, and return what was seen; None where nobody was struck."""
        time.sleep(strike.pause)
        before, victims, resumed = self.generation(), self.instances(strike.ranks), self.resumed
        if len(victims) < len(strike.ranks):
            return None
        fault, struck = FAULTS[strike.name], time.time()
        try:
            fault.act(Target(self.world.home, victims, self.run_id), strike)
        except OrchError as error:
            print(f"  {strike.name} could not be done: {error.message}", file=sys.stderr, flush=True)
            return None
        if fault.restarts:
            trains = self.train(before + 1, struck, PATIENCE)
        else:
            time.sleep(strike.seconds + WATCH)
            self.look_after()
            trains = self.train(before, time.time(), PATIENCE)
        control.fault(self.world.home, "", "", 0)
        return self._measure(strike, struck, before, resumed, trains=trains)

    def _measure(self, strike: Strike, struck: float, before: int, resumed: int, *, trains: bool) -> Seen:
        lines = [line for line in self.lines() if "event" not in line]
        after = [line for line in lines if line["generation"] > before]
        last = max((line["step"] for line in lines if line["generation"] == before), default=0)
        self.ledger.read()
        found = [e.time.timestamp() for e in self.ledger.entries if e.action == "recover"]
        detected = next((moment - struck for moment in found if moment >= struck - 1), None)
        times = [struck, *(line["time"] for line in lines if line["time"] >= struck)]
        return Seen(
            strike.name,
            strike.ranks,
            detected,
            (after[0]["time"] - struck if after else 0.0) if trains else None,
            max((b - a for a, b in pairwise(times)), default=0.0),
            max(0, last - after[0]["step"] + 1) if after else 0,
            self.resumed - resumed,
        )

    def finish(self) -> bool:
        """Say that it is enough, and wait for the end of the run; tell whether it came."""
        self.enough.touch()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.world.json("status", self.run_id)[0]["phase"] == "finished":
                return True
            self.look_after()
            time.sleep(1)
        return False


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
    yield f"{'FAULT':<18} {'TIMES':>5} {'DETECTED s':>16} {'TRAINS AGAIN s':>16} {'PAUSE s':>16} {'STEPS LOST':>12}"
    for name in sorted({item.fault for item in seen}):
        mine = [item for item in seen if item.fault == name]
        figures = [
            _middle([item.detected for item in mine if item.detected is not None]),
            _middle([item.trains for item in mine if item.trains]),
            _middle([item.pause for item in mine]),
        ]
        lost = [item.lost for item in mine]
        yield (
            f"{name:<18} {len(mine):>5} "
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
