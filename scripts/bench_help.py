"""How long `orch --help` takes as a ratio to a click program with an empty group, in the same run."""

from __future__ import annotations

import subprocess
import sys
import time

EMPTY = "import click\n@click.group()\ndef main() -> None: ...\nmain(['--help'])\n"
COMMANDS = {
    "orch": [sys.executable, "-c", "from orchestrator.cli.main import main; main()", "--help"],
    "empty": [sys.executable, "-c", EMPTY],
}


def seconds(command: list[str]) -> float:
    """Return the wall time of a command."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    trials = int(sys.argv[1])
    best = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(trials):
        for name, command in COMMANDS.items():
            best[name] = min(best[name], seconds(command))
    orch, empty = best["orch"] * 1000, best["empty"] * 1000
    print(f"orch --help: {orch:.0f} ms; an empty click group: {empty:.0f} ms; ratio {orch / empty:.2f}")


if __name__ == "__main__":
    main()
