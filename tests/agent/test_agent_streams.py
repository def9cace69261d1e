"""Reading what a training writes, however it writes it: secrets, progress lines, the last lines of the output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.agent.progress import LONGEST_LINE, ProgressTail, brief, parse_line
from orchestrator.agent.redact import MASK, Redactor
from orchestrator.agent.tail import BYTES, LINES, clean, read_tail

TEXT = st.text(alphabet="ab c\n", min_size=1, max_size=6)


@given(secrets=st.lists(TEXT, max_size=3), pieces=st.lists(st.text(alphabet="ab c\nx", max_size=8), max_size=8))
@example(secrets=["abc", "abcabx"], pieces=["abcab", "y"])
@example(secrets=["abc", "abcabx"], pieces=["abc", "abx"])
@example(secrets=["ab", "bab"], pieces=["a", "ba", "b"])
def test_a_stream_shows_the_same_however_it_is_cut(secrets: list[str], pieces: list[str]) -> None:
    whole = Redactor(secrets)
    expected = whole.feed("".join(pieces).encode()) + whole.flush()
    cut = Redactor(secrets)
    assert b"".join(cut.feed(piece.encode()) for piece in pieces) + cut.flush() == expected


@given(secret=st.text(alphabet="abc", min_size=1, max_size=5), text=st.text(alphabet="abc", max_size=40))
def test_no_secret_is_ever_shown(secret: str, text: str) -> None:
    redactor = Redactor([secret])
    shown = b"".join(redactor.feed(bytes([byte])) for byte in text.encode()) + redactor.flush()
    assert secret.encode() not in shown
    assert secret not in Redactor([secret]).clean([{"k": text}])[0]["k"]


def test_the_lines_of_a_key_are_secrets_each_but_short_words_in_it_are_not() -> None:
    key = "-----BEGIN KEY-----\nAAAAB3NzaC1yc2E\nok\n"
    redactor = Redactor([key])
    assert redactor.feed(b"it is AAAAB3NzaC1yc2E, ok?\n") == b"it is ***, ok?\n"


def test_without_secrets_nothing_is_held_or_changed() -> None:
    assert Redactor(["", ""]).feed(b"a\xff\x00b") == b"a\xff\x00b"
    assert Redactor([]).flush() == b""


def test_a_value_stays_json_when_a_secret_looks_like_json() -> None:
    redactor = Redactor(['"', "5"])
    value = redactor.clean({"step": 5, "note": 'a "5"', "k5": [True, None, "5"]})
    assert json.loads(json.dumps(value)) == {"step": 5, "note": "a *********", "k***": [True, None, "***"]}
    assert MASK == b"***"


def lines_of(tail: ProgressTail) -> list[object]:
    return [line.get("step", line.get("event")) for line in tail.read()]


def test_progress_is_followed_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    tail = ProgressTail(file)
    assert tail.read() == []
    with file.open("ab", buffering=0) as writer:
        writer.write(b'{"step": 1}\n{"step": 2, "lo')
        assert lines_of(tail) == [1]
        writer.write(b'ss": 0.5}\n')
        assert lines_of(tail) == [2]
        assert tail.last == {"step": 2, "loss": 0.5}
        writer.write(b'{"event": "stopped", "step": 7}\n{"event": "note"}\n')
        assert lines_of(tail) == [7, "note"]
        assert (tail.stopped, tail.last) == (7, {"event": "stopped", "step": 7})
    assert tail.read() == []


def test_garbage_in_the_progress_file_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    deep = b"[" * 50_000
    garbage = [b"", b"\xff\xfe\x00", b"[1]", b"17", b"{", b"null", deep, b"{}"]
    odd = [b'{"step": "x"}', b'{"step": true}']
    file.write_bytes(b"\n".join([b'{"step": 1}', *garbage, b'{"step": 2}', *odd, b""]))
    tail = ProgressTail(file)
    assert tail.read() == [{"step": 1}, {}, {"step": 2}, {"step": "x"}, {"step": True}]
    assert (tail.last, tail.stopped) == ({"step": 2}, None)


def test_a_line_without_end_is_dropped_in_constant_memory_and_the_next_one_is_read(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    tail = ProgressTail(file)
    with file.open("ab", buffering=0) as writer:
        for _ in range(5):
            writer.write(b'{"x": "' + b"y" * 3 * LONGEST_LINE)
            assert tail.read() == []
            assert len(tail._rest) <= LONGEST_LINE
        writer.write(b'"}\n{"step": 3}\n')
    assert tail.read() == [{"step": 3}]


def test_a_progress_file_that_is_begun_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    tail = ProgressTail(file)
    file.write_bytes(b'{"step": 1}\n{"step": 2}\n')
    tail.read()
    file.write_bytes(b'{"step": 3}\n')
    assert lines_of(tail) == [3]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_know_become_texts(text: str) -> None:
    value = parse_line(b'{"step": 1, "loss": ' + text.encode() + b"}")
    assert value == {"step": 1, "loss": text}


def test_the_beacon_gets_only_plain_figures() -> None:
    line = {"step": 1, "loss": 0.5, "phase": "a", "note": "n" * 101, "list": [1], "map": {}, "none": None}
    assert brief(line) == {"step": 1, "loss": 0.5, "phase": "a", "none": None}
    assert len(brief({str(n): n for n in range(100)}) or {}) == 40
    assert brief(None) is None


def test_the_last_lines_are_those_a_terminal_shows() -> None:
    text = "\x1b[1;31mred\x1b[0m\r\n 10%\r 50%\r100%\ntab\there\n\x1b]0;title\x07name\n\x00\x1b7bell\x07\n\n\n"
    assert clean(text) == ("red", "100%", "tab\there", "name", "bell")


def test_only_the_last_lines_are_taken_and_long_ones_are_cut(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    assert read_tail(file, Redactor([])) == ()
    file.write_text("".join(f"line {n}\n" for n in range(100_000)))
    assert read_tail(file, Redactor([])) == tuple(f"line {n}" for n in range(100_000 - LINES, 100_000))
    file.write_bytes(b"x" * 10 * BYTES)
    assert read_tail(file, Redactor([])) == ()
    file.write_bytes(b"\xff\xfe" * 1000)
    assert len(read_tail(file, Redactor([]))[0]) == 300


def test_a_secret_that_is_cut_by_either_end_of_the_tail_is_not_shown(tmp_path: Path) -> None:
    secret = "S3CR3T" * 10
    file = tmp_path / "run.log"
    file.write_text("a" * 100 + secret + "\n" + "b\n" * ((BYTES - 30) // 2) + "end " + secret[:20])
    redactor = Redactor([secret])
    for _ in range(2):
        shown = read_tail(file, redactor)
        assert not any("S3CR3T" in line for line in shown)
        assert shown[-1] == "end"
    file.write_text("only " + secret[:20])
    assert [read_tail(file, redactor), read_tail(file, redactor)] == [("only",), ("only",)]
