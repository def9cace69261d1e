"""The example of docs/bring-your-own-script.md without orch: killed and started again, it ends where it would have."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain-ddp" / "train.py"
LAST = 300  # steps; the example saves at 250, and at the end


def start(folder: Path, processes: int, steps: int = LAST) -> subprocess.Popen[bytes]:
    """Start the example in `folder` under a torchrun of its own."""
    folder.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCH_") and name != "PYTHONPATH"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*command, str(EXAMPLE)],
            cwd=folder,
            env=kept | {"STEPS": str(steps), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=log,
            stderr=log,
        )


def finish(folder: Path, processes: int) -> dict[str, Any]:
    """Run the example to its end; return what its last checkpoint holds."""
    with start(folder, processes) as process:
        try:
            assert process.wait(240) == 0, (folder / "log").read_text()
        finally:
            kill(process)
    state: dict[str, Any] = torch.load(folder / "checkpoints" / str(LAST) / "state.pt")
    return state


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a torchrun, where it still runs, and its ranks, which lead process groups of their own."""
    if process.poll() is None:
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, ranks)):
            os.kill(pid, signal.SIGKILL)


def numbers(state: dict[str, Any]) -> list[torch.Tensor]:
    """Return every tensor of a checkpoint: the weights, then the optimizer's moments and counts."""
    optimizer = state["optimizer"]["state"].values()
    return [*state["model"].values(), *(value for moments in optimizer for value in moments.values())]


@pytest.mark.timeout(900)
def test_killed_and_started_again_it_ends_with_the_same_weights_or_goes_on_with_other_ranks(tmp_path: Path) -> None:
    through = finish(tmp_path / "through", 2)

    killed = tmp_path / "killed"
    with start(killed, 2, steps=10**6) as process:
        try:
            deadline = time.monotonic() + 120
            while not (killed / "checkpoints" / "250").exists():
                assert process.poll() is None and time.monotonic() < deadline, (killed / "log").read_text()
                time.sleep(0.05)
        finally:
            kill(process)
    for folder in (killed / "checkpoints").iterdir():  # whatever came after it before the signal did
        if folder.name != "250":
            shutil.rmtree(folder)
    shutil.copytree(killed, tmp_path / "fewer")

    again = numbers(finish(killed, 2))
    assert len(again) == 6 + 3 * 6
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, numbers(through), strict=True))
    fewer = numbers(finish(tmp_path / "fewer", 1))
    assert {float(count) for count in fewer[6::3]} == {LAST}, "its optimizer took every step"
    assert not torch.equal(fewer[0], again[0]), "other ranks draw other points"


def test_every_line_the_page_adds_is_one_of_the_example() -> None:
    page = (EXAMPLE.parents[2] / "docs" / "bring-your-own-script.md").read_text()
    added = re.findall(r"^\+ *(.+)$", "".join(re.findall(r"^```diff\n.*?^```$", page, re.MULTILINE | re.DOTALL)), re.M)
    assert len(added) > 20
    lines = {line.strip() for line in EXAMPLE.read_text().splitlines()}
    assert [line for line in added if line not in lines] == []


def test_the_example_is_short_and_knows_nothing_of_orch() -> None:
    text = EXAMPLE.read_text()
    assert len([line for line in text.splitlines() if line]) <= 62
    assert not re.search(r"import.*(trainer|orchestrator)|from (trainer|orchestrator)", text)
