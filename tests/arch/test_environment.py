"""`scripts/environment` finds its checkout, wherever it is sourced from and by whichever shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = [name for name in ("bash", "zsh") if shutil.which(name)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a blank in its path, unpacked tools, and nothing else."""
    made = tmp_path / "my checkout"
    (made / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "environment", made / "scripts")
    (made / ".tools" / "usr" / "lib" / "x86_64-linux-gnu").mkdir(parents=True)
    return made


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("where", ["checkout", "elsewhere", "below"])
def test_it_finds_its_checkout(checkout: Path, shell: str, where: str) -> None:
    elsewhere, below = checkout.parent / "elsewhere", checkout / "docs"
    for folder in (elsewhere, below):
        folder.mkdir()
    (elsewhere / ".tools").mkdir()
    (elsewhere / "scripts").mkdir()
    folder, name = {
        "checkout": (checkout, "scripts/environment"),
        "elsewhere": (elsewhere, str(checkout / "scripts" / "environment")),
        "below": (below, "../scripts/environment"),
    }[where]
    line = 'set -eu; . "$1"; echo "$PATH"; echo "$ORCH_TOOLS"; echo "$LD_LIBRARY_PATH"; pwd; echo "${orch_checkout-}"'
    environment = {"PATH": "/usr/bin:/bin", "CDPATH": str(elsewhere)}
    done = subprocess.run(
        [shutil.which(shell) or shell, "-c", line, shell, name],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    path, tools, libraries, here, left = done.stdout.splitlines()
    assert done.stderr == ""
    assert path.split(":")[:4] == [
        f"{checkout}/.tools/usr/bin", f"{checkout}/.tools/usr/sbin", f"{checkout}/.venv/bin", "/usr/bin",
    ]  # fmt: skip
    assert (tools, here, left) == (f"{checkout}/.tools", str(folder), "")
    assert libraries == f"{checkout}/.tools/usr/lib/x86_64-linux-gnu"
