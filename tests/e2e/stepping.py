"""Runs of the training in `steps.py`: launching them, following them, and what they leave in S3."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.e2e.sandbox_world import World, phase, wait_for

TRAINING = Path(__file__).with_name("steps.py").read_text()
INTERVAL = 10  # steps between two checkpoints


def launch(world: World, name: str, *, last: int, fail_at: int = 0, **keys: Any) -> str:
    """Launch the training of `steps.py` and return the run's id."""
    command = f"python3 steps.py {last} {fail_at} {INTERVAL}"
    file = world.experiment(name, command, workdir=".", checkpoint_grace="20s", **({"num_nodes": 4} | keys))
    (Path(file).parent / "steps.py").write_text(TRAINING)
    world.orch("launch", "--cloud", "sandbox", "-y", "--detach", file)
    return world.run_id(name)


def row(world: World, run_id: str) -> dict[str, Any]:
    return next(item for item in world.json("status") if item["run_id"] == run_id)


def trains(world: World, run_id: str, generation: int, after: int = 0) -> dict[str, Any]:
    """Wait until a generation has made steps beyond `after`, and return the run's row."""

    def look() -> dict[str, Any] | None:
        seen = row(world, run_id)
        far = (seen["metrics"].get("generation"), seen["metrics"].get("step", 0))
        return seen if seen["phase"] == "running" and far[0] == generation and far[1] > after else None

    found: dict[str, Any] = wait_for(f"generation {generation} trains", look, 240)
    return found


def ledger(world: World, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(world.body(key)) for key in sorted(world.keys(f"runs/{run_id}/ledger/"))]


def recoveries(world: World, run_id: str) -> list[dict[str, Any]]:
    return [entry for entry in ledger(world, run_id) if entry["action"] == "recover"]


def steps(world: World, run_id: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in world.body(f"runs/{run_id}/metrics.jsonl").splitlines()]
    return [line for line in lines if "weight" in line]


def beacon(world: World, run_id: str, instance_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.body(f"runs/{run_id}/nodes/{instance_id}/beacon.json"))
    return found


def node_of(world: World, run_id: str, rank: int) -> str:
    """Return the instance that has a rank in the newest generation."""
    living = [item["InstanceId"] for item in world.instances(run_id) if item["State"]["Name"] == "running"]
    said = [beacon(world, run_id, instance_id) for instance_id in living]
    newest = max(item["generation"] for item in said)
    return str(next(i["instance_id"] for i in said if (i["generation"], i["rank"]) == (newest, rank)))


def processes(world: World, instance_id: str) -> list[int]:
    hosts = world.json("sandbox", "status")["hosts"]
    return next(host["pids"] for host in hosts if host["instance_id"] == instance_id)


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def has_ended(world: World, run_id: str) -> None:
    wait_for(f"{run_id} has ended", lambda: phase(world, run_id) in {"finished", "failed", "no-capacity"}, 120)


def kinds(world: World, run_id: str) -> list[tuple[str, int]]:
    return [(entry["detail"]["kind"], entry["detail"]["missing"]) for entry in recoveries(world, run_id)]


def early(world: World, run_id: str) -> list[int]:
    """Return the steps at which a checkpoint was asked for by the save file."""
    lines = [json.loads(line) for line in world.body(f"runs/{run_id}/metrics.jsonl").splitlines()]
    return [line["step"] for line in lines if line.get("event") == "early"]


def saved_steps(world: World, run_id: str) -> list[int]:
    keys = world.keys(f"runs/{run_id}/checkpoints/")
    return [int(key.split("/")[3]) for key in keys if key.endswith("/MANIFEST.json")]
