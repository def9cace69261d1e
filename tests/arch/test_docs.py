"""README and documents speak of what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core.overrides import explain

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS = sorted(set(re.findall(r"`(orch [a-z]+[^`|]*)", (ROOT / "README.md").read_text())))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_is_one(line: str) -> None:
    words = shlex.split(line.replace("\\", " "))
    name = words[1]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", name, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [word for word in words if word.startswith("--") and word != "--" and word not in done.stdout] == []


def test_the_readme_shows_what_the_sandbox_changes() -> None:
    file = ROOT / "orchestrator" / "experiments" / "imagenet18.yaml"
    changes = explain(file.read_bytes(), "imagenet18", "sandbox", flags={"num_nodes": 16})
    shown = re.findall(r"^profile sandbox: (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(shown) >= 4
    assert set(shown) <= {str(change) for change in changes}


def test_the_scripts_of_the_readme_exist_and_can_be_run() -> None:
    scripts = set(re.findall(r"scripts/[a-z_]+", (ROOT / "README.md").read_text()))
    assert scripts >= {"scripts/demo", "scripts/test"}
    scripts -= {"scripts/environment"}  # is sourced
    assert [name for name in scripts if not (ROOT / name).stat().st_mode & 0o111] == []


def test_every_test_that_the_reliability_page_names_is_there() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (ROOT / "docs" / "reliability.md").read_text()))
    written = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert len(named) > 20
    assert named - written == set()


def test_each_of_the_48_scenarios_has_a_test_or_a_reason_why_not() -> None:
    table = (ROOT / "docs" / "reliability.md").read_text().partition("## Scenarios")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if re.match(r"\| \d", line)]
    assert {int(row[0].strip("| ")) for row in rows} == set(range(1, 49))

    def is_answered(row: list[str]) -> bool:
        return "`test_" in row[3] or "`scripts/" in row[3] or ("*not yet*" in row[2] and "because" in row[2])

    assert [row for row in rows if len(row) != 4 or not is_answered(row)] == []
