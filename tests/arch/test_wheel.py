"""The built wheel is a working `orch` outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, without its dependencies (those of this environment serve)."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    target = folder / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    return target


def run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(site), "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *words], env=environment, cwd="/", capture_output=True, text=True, check=False
    )


def test_the_command_runs_and_is_the_installed_one(site: Path) -> None:
    assert (site / "bin" / "orch").exists()
    done = run(site, "-c", "import orchestrator, trainer; print(orchestrator.__file__); print(trainer.__file__)")
    assert all(line.startswith(str(site)) for line in done.stdout.splitlines()), done.stdout + done.stderr
    assert "launch" in run(site, "-m", "orchestrator.cli.main", "--help").stdout


def test_built_in_experiments_come_with_it(site: Path) -> None:
    done = run(site, "-m", "orchestrator.cli.main", "launch", "imagenet18", "-y")
    assert done.returncode == 4, "the experiment was found and read; only credentials are missing: " + done.stderr
    missing = run(site, "-m", "orchestrator.cli.main", "launch", "imagenet19", "-y")
    assert missing.returncode in {2, 7}
    assert "imagenet18" in missing.stderr


def test_what_nodes_need_can_be_packed_from_it(site: Path, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from orchestrator.node.bundle import build_bundle; "
        "pathlib.Path(sys.argv[1]).write_bytes(build_bundle(None, builtin=True).read())"
    )
    done = run(site, "-c", code, str(tmp_path / "bundle.tar.gz"))
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "bundle.tar.gz") as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"agent/orchestrator/agent/main.py", "agent/libtmux/__init__.py", "workdir/trainer/__main__.py"} <= names
    assert not [name for name in names if "/cli/" in name or "/sandbox/" in name]


def test_recipes_of_machine_images_come_with_it(site: Path) -> None:
    done = run(site, "-m", "orchestrator.cli.main", "ami", "build", "volta", "-y")
    assert done.returncode == 4, "the recipe was found and read; only credentials are missing: " + done.stderr
    missing = run(site, "-m", "orchestrator.cli.main", "ami", "build", "volts")
    assert missing.returncode == 2
    assert "did you mean volta? there are: modern, volta" in missing.stderr
