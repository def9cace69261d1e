from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.errors import NotFound, OrchError, Unreachable
from orchestrator.node.tmux import Tmux

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
SOCKET = f"orch-test-{os.getpid()}"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the test's own, short enough for tmux's socket; the server in it ends with the test."""
    path = Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp"))
    monkeypatch.setenv("TMUX_TMPDIR", str(path))
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    monkeypatch.delenv("TMUX", raising=False)
    yield path
    for socket in ([], ["-L", SOCKET]):
        subprocess.run(["tmux", *socket, "kill-server"], check=False, capture_output=True)
    shutil.rmtree(path)


@pytest.fixture
def tmux(folder: Path) -> Tmux:
    return Tmux(SOCKET)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def test_without_a_server_there_is_no_session_and_nothing_to_end(tmux: Tmux) -> None:
    assert not tmux.has_session("orch-a")
    assert tmux.window_pane("orch-a", "train") is None
    tmux.kill_session("orch-a")
    assert tmux.kill_server_if_empty()


def test_a_session_runs_its_command_and_ends_when_killed(tmux: Tmux) -> None:
    tmux.new_session("orch-a", "train", ["sleep", "300"])
    assert tmux.has_session("orch-a")
    pane = tmux.window_pane("orch-a", "train")
    assert pane is not None
    # tmux forks first: for a moment the process is still its own copy.
    wait_for(lambda: Path(f"/proc/{pane.pid}/cmdline").read_bytes() == b"sleep\x00300\x00")
    assert not tmux.kill_server_if_empty()
    tmux.kill_session("orch-a")
    wait_for(lambda: not Path(f"/proc/{pane.pid}").exists())
    assert not tmux.has_session("orch-a")


def test_names_are_exact_and_no_prefixes(tmux: Tmux) -> None:
    tmux.new_session("orch-abc", "training", ["sleep", "300"])
    assert not tmux.has_session("orch-ab")
    assert tmux.window_pane("orch-ab", "training") is None
    assert tmux.window_pane("orch-abc", "train") is None
    tmux.kill_session("orch-ab")
    assert tmux.has_session("orch-abc")


@pytest.mark.parametrize("name", ["", "a:b", "a.b", "=a", "a*", "%1", "$1", " a"])
def test_a_name_that_tmux_reads_otherwise_is_refused(tmux: Tmux, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        tmux.new_session(name, "train", ["true"])


def test_arguments_reach_the_command_as_they_are(tmux: Tmux, folder: Path) -> None:
    out = folder / "out"
    words = ["$(touch hacked)", "two words", "quote'd", 'dou"ble', "-x", ";", "a;", "b\\;", "é"]
    script = 'printf "%s\\n" "$@" > "$0.new" && mv "$0.new" "$0"'
    tmux.new_session("orch-a", "train", ["sh", "-c", script, str(out), *words])
    wait_for(out.exists)
    assert out.read_text().splitlines() == words
    assert not (folder / "hacked").exists()


def test_a_single_word_is_a_program_and_no_shell_line(tmux: Tmux, folder: Path) -> None:
    program = folder / "two words"
    program.write_text(f"#!/bin/sh\ntouch {folder}/ran\nsleep 300\n")
    program.chmod(0o700)
    tmux.new_session("orch-a", "train", [str(program)])
    wait_for((folder / "ran").exists)


def test_the_command_has_its_variables_and_no_command_line_shows_them(tmux: Tmux, folder: Path) -> None:
    out = folder / "out"
    secret = "s3cr3t $HOME `x` 'quoted'\nsecond line"
    script = 'printf %s "$TOKEN" > "$0.new" && mv "$0.new" "$0" && sleep 300'
    tmux.new_session("orch-a", "train", ["sh", "-c", script, str(out)], env={"TOKEN": secret})
    wait_for(out.exists)
    assert out.read_text() == secret
    assert "s3cr3t" not in every_command_line()
    assert [file.name for file in folder.glob("orch-env-*")] == []


def every_command_line() -> str:
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(lines)


def test_variables_of_a_session_that_does_not_start_are_removed(tmux: Tmux, folder: Path) -> None:
    tmux.new_session("orch-a", "train", ["sleep", "300"])
    with pytest.raises(OrchError, match="duplicate session"):
        tmux.new_session("orch-a", "train", ["sleep", "300"], env={"TOKEN": "x"})
    assert list(folder.glob("orch-env-*")) == []


def test_the_command_starts_in_the_folder_asked_for(tmux: Tmux, folder: Path) -> None:
    below = folder / "below"
    below.mkdir()
    tmux.new_session("orch-a", "train", ["sh", "-c", "touch here; sleep 300"], cwd=below)
    wait_for((below / "here").exists)


def test_a_window_is_added_and_its_output_captured(tmux: Tmux) -> None:
    tmux.new_session("orch-a", "train", ["sleep", "300"])
    tmux.new_window("orch-a", "agent", ["sh", "-c", "seq 1 500; printf 'no newline'; sleep 300"])
    wait_for(lambda: tmux.capture("orch-a", "agent", 3).endswith("no newline"))
    assert tmux.capture("orch-a", "agent", 3).split("\n") == ["499", "500", "no newline"]
    assert len(tmux.capture("orch-a", "agent", 300).split("\n")) == 300
    assert tmux.capture("orch-a", "train") == ""


def test_no_window_is_added_to_a_session_that_is_not_there(tmux: Tmux) -> None:
    with pytest.raises(NotFound, match="no tmux session orch-b"):
        tmux.new_window("orch-b", "agent", ["true"])
    tmux.new_session("orch-a", "train", ["sleep", "300"])
    with pytest.raises(NotFound, match="no tmux session orch-b"):
        tmux.new_window("orch-b", "agent", ["true"])


def test_capturing_what_is_not_there_is_not_found(tmux: Tmux) -> None:
    with pytest.raises(NotFound, match="no window train"):
        tmux.capture("orch-a", "train")


def test_a_server_without_sessions_is_ended(tmux: Tmux) -> None:
    tmux.new_session("orch-a", "train", ["sleep", "300"])
    subprocess.run(["tmux", "-L", SOCKET, "set-option", "-s", "exit-empty", "off"], check=True)
    tmux.kill_session("orch-a")
    assert not tmux.has_session("orch-a")
    assert tmux.kill_server_if_empty()

    def is_gone() -> bool:
        # A server that is told to end may still accept a connection, and then says something else.
        listing = subprocess.run(["tmux", "-L", SOCKET, "ls"], check=False, capture_output=True, text=True)
        return "no server running" in listing.stderr

    wait_for(is_gone)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every socket")
def test_a_server_that_may_not_be_asked_is_not_taken_for_none(tmux: Tmux, folder: Path) -> None:
    tmux.new_session("orch-a", "train", ["sleep", "300"])
    socket = folder / f"tmux-{os.geteuid()}" / SOCKET
    socket.chmod(0)
    try:
        with pytest.raises(Unreachable):
            tmux.has_session("orch-a")
    finally:
        socket.chmod(0o700)


def test_a_tmux_that_fails_is_not_taken_for_no_server(
    tmux: Tmux, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = folder / "bin" / "tmux"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'protocol version mismatch' >&2\nexit 1\n")
    broken.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
        with pytest.raises(Unreachable, match="protocol version mismatch"):
            tmux.has_session("orch-a")


@pytest.mark.parametrize("leaves", [1, 2])
def test_a_server_that_is_leaving_is_asked_once_more(
    tmux: Tmux, folder: Path, monkeypatch: pytest.MonkeyPatch, leaves: int
) -> None:
    leaving = folder / "bin" / "tmux"
    leaving.parent.mkdir()
    asked = folder / "asked"
    leaving.write_text(
        f"#!/bin/sh\necho asked >>{asked}\n"
        f"[ $(wc -l <{asked}) -gt {leaves} ] || {{ echo 'server exited unexpectedly' >&2; exit 1; }}\n"
        f'exec {shutil.which("tmux")} "$@"\n'
    )
    leaving.chmod(0o700)
    monkeypatch.setenv("PATH", f"{leaving.parent}:{os.environ['PATH']}")
    if leaves > 1:
        with pytest.raises(Unreachable, match="server exited"):
            tmux.new_session("orch-a", "train", ["sleep", "300"])
    else:
        tmux.new_session("orch-a", "train", ["sleep", "300"])
        assert tmux.has_session("orch-a")


def test_a_server_that_cannot_be_started_says_why(tmux: Tmux, folder: Path) -> None:
    (folder / f"tmux-{os.geteuid()}").write_text("where the folder of the sockets should be")
    with pytest.raises(Unreachable, match="tmux"):
        tmux.new_session("orch-a", "train", ["true"])


def test_without_tmux_it_says_what_to_install(tmux: Tmux, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(NotFound, match="tmux is not installed"):
            tmux.has_session("orch-a")


def test_the_default_server_is_that_of_the_environment(folder: Path) -> None:
    Tmux().new_session("orch-a", "train", ["sleep", "300"])
    assert Tmux().has_session("orch-a")
    assert not Tmux(SOCKET).has_session("orch-a")
