"""How far a build is: a few lines in a pipe, JSON for programs, bars on a terminal; nothing remote styles them."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from orchestrator.report import progress
from orchestrator.report.progress import Bar, Lines


def test_a_pipe_gets_a_line_at_the_begin_and_the_end_of_a_stage() -> None:
    said: list[str] = []
    lines = Lines(said.append, as_json=False)
    for done in (1, 2048, 3072, 4096, 4096):
        lines.at("uploading", done, 4096)
    lines.say("left \x1b[31mout")
    lines.at("packing", 1200, 1200)
    assert said == [
        "uploading: 4.0 KiB in all",
        "uploading: 4.0 KiB of 4.0 KiB",
        "left out",
        "packing: 1,200 of 1,200 images",
    ]
    lines.at("reading", 60, 11 * 2**20)
    assert said[-1] == "reading for the digests: 11.0 MiB in all"


def test_programs_get_the_same_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS_AS_JSON", 0.0)
    said: list[str] = []
    lines = Lines(said.append, as_json=True)
    for done in (10, 20, 30):
        lines.at("packing", done, 30)
    lines.at("staging", 1, 2)
    lines.say("so")
    assert [json.loads(line) for line in said] == [
        *({"stage": "packing", "images": done, "of": 30} for done in (10, 20, 30)),
        {"stage": "staging", "bytes": 1, "of": 2},
        {"say": "so"},
    ]


def test_a_terminal_gets_a_bar_for_each_stage() -> None:
    screen = io.StringIO()
    with Bar(Console(file=screen, force_terminal=True, width=100)) as bar:
        bar.at("packing", 5, 10)
        bar.say("left \x1b[31mout")
        bar.at("packing", 10, 10)
        bar.at("uploading", 1024, 4096)
    shown = screen.getvalue()
    assert all(text in shown for text in ("packing", "10 of 10 images", "uploading", "1.0 KiB of 4.0 KiB", "left out"))
    assert "\x1b[31m" not in shown
