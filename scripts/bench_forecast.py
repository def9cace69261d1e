"""Runs of imagenet18 one after the other in one sandbox: each bill beside the range that `orch plan` gave before it.

The first plan knows no earlier run; each one after it knows those before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ORCH = [sys.executable, "-m", "orchestrator.cli.main"]


def main() -> None:
    """Run and print a table; ends with 1 when fewer than nine in ten bills lie within, or ranges are too wide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="runs after the first one")
    parser.add_argument("--nodes", type=int, default=4)
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp"))
    environment = os.environ | {"ORCH_HOME": str(home)}

    def orch(*words: str) -> Any:
        done = subprocess.run(
            [*ORCH, *words, "--json"], env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        return json.loads(done.stdout)

    experiment = ["--cloud", "sandbox", "--nodes", str(given.nodes), "imagenet18"]
    rows = []
    try:
        subprocess.run([*ORCH, "sandbox", "up"], env=environment, check=True)
        for number in range(given.runs + 1):
            low, high = (float(usd) for usd in orch("plan", *experiment)["offers"][0]["forecast"]["cost_usd"])
            bill = float(orch("launch", "--yes", *experiment)["bill"]["spot_usd_high"])
            rows.append((low <= bill <= high, high / low))
            where = "within" if rows[-1][0] else "outside"
            print(
                f"run {number}: ${low:.4f} to ${high:.4f} (x {high / low:.2f}), billed ${bill:.4f}: {where}", flush=True
            )
    finally:
        subprocess.run([*ORCH, "sandbox", "down"], env=environment, check=False)
        shutil.rmtree(home, ignore_errors=True)
    learned = rows[1:]
    within, narrow = sum(held for held, _ in learned), sum(width <= 1.5 for _, width in learned)
    print(f"after the first run: {within} of {len(learned)} within, {narrow} of {len(learned)} no wider than 1.5")
    sys.exit(0 if 10 * within >= 9 * len(learned) and 10 * narrow >= 9 * len(learned) else 1)


if __name__ == "__main__":
    main()
