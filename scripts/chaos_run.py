"""The run that chaos is done to, and what is seen of it: one fault at a time, from the strike to the next steps.

Does what a person would do (`look_after`) and counts it; judges nothing.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.beacon import Beacon
from orchestrator.core.ids import Keys, bucket_name
from orchestrator.errors import OrchError
from orchestrator.run.ledger import Ledger
from orchestrator.sandbox import control
from scripts.chaos_faults import FAULTS, Strike, Target
from tests.e2e.sandbox_world import World, scheduler

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
        if ended or scheduler(self.run_id) is None:
            self.resumed += ended
            self.world.orch("resume", self.run_id, "--detach", check=None)

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
        everybody = tuple(range(self.nodes))
        end = time.monotonic() + PATIENCE
        while len(self.instances(everybody)) < self.nodes and time.monotonic() < end:
            time.sleep(0.5)  # a replacement has yet to say who it is
        if scheduler(self.run_id) is None:
            self.look_after()
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
