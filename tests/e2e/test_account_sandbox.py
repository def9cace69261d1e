"""`scripts/test --aws`, pointed at the sandbox: the same tests pass unchanged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.sandbox_world import World

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(400)]


def test_the_first_run_of_an_account_passes_on_the_sandbox(world: World) -> None:
    world.orch("sandbox", "up")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "aws", "-rA", "tests/account"],
        cwd=ROOT,
        env=world.environment | {"ORCH_TEST_CLOUD": "sandbox"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
