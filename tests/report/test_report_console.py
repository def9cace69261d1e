"""What a pipe gets: whole lines, without blanks at their ends, whatever a table has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from rich.table import Table

from orchestrator.report.console import make_console


def test_a_pipe_gets_whole_lines_without_blanks_at_their_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("NAME", "WHY"):
        table.add_column(name)
    table.add_row("a", "so " * 200)
    table.add_row("longer", "")
    console = make_console()
    console.print(table)
    console.print("a line " * 100)
    console.print("  kept in front\n", end="")
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "NAME    WHY",
        f"a       {'so ' * 199}so",
        "longer",
        ("a line " * 100).rstrip(),
        "  kept in front",
    ]
    monkeypatch.setenv("COLUMNS", "40")
    make_console().print(table)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40, "who says how wide it is gets that"


def test_a_terminal_is_left_to_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert type(make_console()).__name__ == "Console"


def test_what_goes_to_both_streams_of_one_pipe_stays_in_order() -> None:
    program = """
from orchestrator.report.console import make_console
out, err = make_console(), make_console(stderr=True)
out.print("first")
err.print("second")
out.print("third")
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["first", "second", "third"]
