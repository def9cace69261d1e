"""Text from nodes is harmless on a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.report.text import clean, percent, shorten, sparkline


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m text", "red text"),
        ("\x1b]0;a new title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r q\x1b\\left", "left"),
        ("\x9b2Jcleared\x9d0;t\x07", "cleared"),
        ("\x1b[2J\x1b[H", ""),
        ("bell\x07 and \x00nul", "bell and nul"),
        ("a\tb", "a    b"),
        ("10%|#   |\r100%|####|\r", "100%|####|"),
        ("left\u202egnp.exe", "leftgnp.exe"),
        ("kept: ünïcode 日本", "kept: ünïcode 日本"),
        ("unfinished \x1b[", "unfinished"),
        ("trailing   ", "trailing"),
    ],
)
def test_escapes_and_controls_are_taken_out(raw: str, shown: str) -> None:
    assert clean(raw) == shown


@given(st.text(max_size=80))
def test_nothing_that_steers_a_terminal_ever_survives(raw: str) -> None:
    shown = clean(raw)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert clean(shown) == shown


def test_a_sparkline_follows_the_values() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, 1.0, 9.0, 9.0], 2) == "▁█"
    assert len(sparkline(list(range(1000)), 40)) == 40


def test_a_sparkline_of_nothing_or_of_one_level_or_of_broken_numbers_is_no_error() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([float("nan"), float("inf")], 10) == ""
    assert sparkline([2.0, 2.0], 10) == "▁▁"


def test_a_share_of_nothing_is_no_error() -> None:
    assert percent(0, 0) == "0%"
    assert percent(3, 4) == "75%"


def test_shortening_keeps_the_width() -> None:
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abc", 4) == "abc"
