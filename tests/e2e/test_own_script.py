"""docs/bring-your-own-script.md says the truth: its commands for the sandbox, as they stand there, on real hosts."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.sandbox_world import World, wait_for

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bring-your-own-script.md").read_text()
COMMANDS = re.findall(r"^orch (.*)$", PAGE, re.MULTILINE)
pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(600)]


def test_the_commands_of_the_page_train_stop_resume_and_bill_a_script_that_knows_nothing_of_orch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    commands = iter(COMMANDS)

    def follow(name: str) -> str:
        """Do what the page says next, which is the command `name`."""
        words = shlex.split(next(commands))
        assert words[0] == name
        return world.orch(*words).stdout

    assert "g4dn.12xlarge" in follow("plan")
    follow("launch")
    wait_for("it trains", lambda: "'step': 50" in world.orch("logs", "plain-ddp", check=None).stdout, 180)
    run_id = world.run_id("plain-ddp")
    assert "plain-ddp" in follow("status")
    assert "'step': 50" in follow("logs")
    follow("stop")
    stopped = lines(world, run_id)[-1]
    assert stopped.get("event") == "stopped"
    assert 0 < stopped["step"] < stopped["steps"]
    assert f"runs/{run_id}/checkpoints/{stopped['step']}/MANIFEST.json" in world.keys(f"runs/{run_id}/checkpoints/")
    follow("resume")
    told = lines(world, run_id)
    second = [line["step"] for line in told if line["generation"] == 2]
    assert second == list(range(stopped["step"] // 50 * 50 + 50, stopped["steps"] + 1, 50)), "it went on from there"
    assert told[-1]["top1"] > 90
    assert "total" in follow("cost")
    assert len(world.json("cost", run_id)["instances"]) == 4, "two nodes, twice"
    follow("sandbox")
    assert next(commands, None) is None


def lines(world: World, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in world.body(f"runs/{run_id}/metrics.jsonl").splitlines()]
