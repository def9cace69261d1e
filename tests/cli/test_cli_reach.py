"""`attach`, `ssh` and `exec`: what goes to a node, and what comes back of it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from orchestrator.cli.attach import environment, remote_line
from orchestrator.cli.exec import worst
from orchestrator.cli.ssh import remote_line as ssh_line
from orchestrator.node.tmux import Tmux
from orchestrator.run.windows import SERVER, open_windows
from tests.cli.fake_clouds import Orch
from tests.report.views import running

RUN = "tiny-20261120-120000-abcd"


class Execed(Exception):
    """This process would have become ssh."""


@pytest.fixture
def reached(run_orch: Orch, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was run where; exit code and output of a node are its rank."""
    calls: list[dict[str, Any]] = []

    def ssh_command(view: Any, home: Any, rank: int, remote: Sequence[str], *, tty: bool, **where: Any) -> list[str]:
        calls.append({"run": view.spec.run_id, "rank": rank, "remote": list(remote), "tty": tty})
        return ["ssh", "node", *remote]

    def exec_all(
        view: Any,
        home: Any,
        command: str,
        *,
        ranks: Any,
        timeout: float,
        on_line: Callable[[int, str], None],
        **where: Any,
    ) -> dict[int, int]:
        calls.append({"run": view.spec.run_id, "command": command, "ranks": ranks, "timeout": timeout})
        for rank in ranks or (0, 1):
            on_line(rank, f"\x1b[32mi am {rank}\x1b[0m")
        return {rank: rank for rank in ranks or (0, 1)}

    def become(program: str, argv: list[str], env: dict[str, str]) -> None:
        calls.append({"argv": argv, "term": env["TERM"]})
        raise Execed

    monkeypatch.setattr("orchestrator.run.reach.ssh_command", ssh_command)
    monkeypatch.setattr("orchestrator.run.reach.exec_all", exec_all)
    monkeypatch.setattr(os, "execvpe", become)
    run_orch.cloud.add(running())
    return calls


@pytest.mark.parametrize(
    ("words", "remote"),
    [
        ((RUN, "--node", "3"), []),
        (("--node", "3"), []),
        ((RUN, "--node", "3", "--", "nvidia-smi", "-L"), ["nvidia-smi -L"]),
        (("--node", "3", "--", "echo $HOME; id"), ["echo $HOME; id"]),
        ((RUN, "--node", "3", "hostname"), ["hostname"]),
        ((RUN, "--node", "3", "--", "echo", "a b", "$HOME"), ["echo 'a b' '$HOME'"]),
        ((RUN, "--node", "3", "--", "--help"), ["--help"]),
    ],
)
def test_ssh_passes_the_command_on(
    run_orch: Orch, reached: list[dict[str, Any]], words: tuple[str, ...], remote: list[str]
) -> None:
    result = run_orch("ssh", *words)
    assert isinstance(result.exception, SystemExit)
    assert reached[0] == {"run": RUN, "rank": 3, "remote": remote, "tty": False}
    assert reached[1]["argv"][0] == "ssh"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("hostname; id",), "hostname; id"),
        ((RUN, "hostname"), "hostname"),
        ((RUN, "--", "df", "-h", "/tmp x"), "df -h '/tmp x'"),
        (("--", "df", "-h"), "df -h"),
    ],
)
def test_exec_reaches_every_node(
    run_orch: Orch, reached: list[dict[str, Any]], words: tuple[str, ...], command: str
) -> None:
    result = run_orch("exec", *words)
    assert reached == [{"run": RUN, "command": command, "ranks": None, "timeout": 600.0}]
    assert result.stdout == "[0] i am 0\n[1] i am 1\n"
    assert result.exit_code == 1
    assert result.stderr == "[1] exit code 1\n"


def test_exec_on_some_nodes_and_as_json(run_orch: Orch, reached: list[dict[str, Any]]) -> None:
    result = run_orch("exec", "--node", "0", "--json", "--timeout", "30s", "--", "id")
    assert reached[0]["ranks"] == (0,)
    assert reached[0]["timeout"] == 30.0
    assert json.loads(result.stdout) == {"run_id": RUN, "nodes": [{"rank": 0, "exit_code": 0, "lines": ["i am 0"]}]}
    assert result.exit_code == 0


@pytest.mark.parametrize("words", [(), (RUN, "--"), ("--timeout", "soon", "id")])
def test_exec_without_a_command_or_with_a_wrong_time_is_bad_input(
    run_orch: Orch, reached: list[dict[str, Any]], words: tuple[str, ...]
) -> None:
    assert run_orch("exec", *words).exit_code == 2
    assert reached == []


@pytest.mark.parametrize(("codes", "code"), [({}, 0), ({0: 0, 1: 3, 2: 1}, 3), ({0: -9}, 255), ({0: 255, 1: 1}, 255)])
def test_the_worst_exit_code_counts(codes: dict[int, int], code: int) -> None:
    assert worst(codes) == code


def test_attach_needs_a_terminal(run_orch: Orch, reached: list[dict[str, Any]]) -> None:
    result = run_orch("attach")
    assert result.exit_code == 2
    assert "attach needs a terminal" in result.stderr
    assert reached == []


def test_attach_opens_the_session_of_the_node(
    run_orch: Orch, reached: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.attach.on_terminal", lambda: True)
    run_orch("attach", "tiny", "--node", "1")
    assert reached[0]["rank"] == 1
    assert reached[0]["tty"] is True
    assert f"tmux -u attach-session -t =orch-{RUN};" in reached[0]["remote"][0]


@pytest.fixture
def tmux(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tmux]:
    """The tmux server of a node, and in the same folder that of the windows; both end with the test."""
    with tempfile.TemporaryDirectory(prefix="orch-", dir="/tmp") as folder:
        monkeypatch.setenv("TMUX_TMPDIR", folder)
        monkeypatch.delenv("TMUX", raising=False)
        try:
            yield Tmux()
        finally:
            for socket in ([], ["-L", SERVER]):
                subprocess.run(["tmux", *socket, "kill-server"], check=False, capture_output=True)


def test_windows_of_all_nodes_outlive_a_recovery(run_orch: Orch, tmux: Tmux) -> None:
    session, windows = f"orch-{RUN}", Tmux(SERVER)
    tmux.new_session(session, "train", ["sh", "-c", "echo the first start; exec sleep 300"])
    over_ssh = ["env", "-u", "TMUX", "sh", "-c", remote_line(RUN)]
    again = ["sh", "-c", "echo a machine of rank $0; exec sleep 300"]
    show = open_windows(run_orch.home, RUN, {0: over_ssh, 1: ["sh", "-c", "exit 255"]}, again, inside=False)
    name = show[show.index("-t") + 1].strip("=")

    def shows(rank: int, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in (seen := windows.capture(name, f"node-{rank}")):
            assert time.monotonic() < deadline, seen
            time.sleep(0.05)

    shows(0, "the first start")
    shows(1, "node 1: the connection ended with 255")
    tmux.kill_session(session)
    shows(0, "waiting for the next start")
    tmux.new_session(session, "train", ["sh", "-c", "echo the second start; exec sleep 300"])
    shows(0, "the second start")
    pane = windows.window_pane(name, "node-1")
    assert pane is not None
    subprocess.run(["tmux", "-L", SERVER, "send-keys", "-t", pane.id, "Enter"], check=True)
    shows(1, "a machine of rank 1")
    subprocess.run(["tmux", "detach-client", "-s", f"={session}"], check=True)
    deadline = time.monotonic() + 60
    while windows.window_pane(name, "node-0") is not None:
        assert time.monotonic() < deadline, "who left the session of a node is shown it again"
        time.sleep(0.05)


@pytest.mark.parametrize(("name", "used"), [(None, "xterm-256color"), ("dumb", "xterm-256color"), ("screen", "screen")])
def test_a_terminal_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch, name: str | None, used: str) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if name is not None:
        monkeypatch.setenv("TERM", name)
    assert environment()["TERM"] == used


def test_a_terminal_the_node_does_not_know_is_replaced_there() -> None:
    line = remote_line(RUN).partition("; this()")[0] + "; echo $TERM"
    for name, used in (("no-such-terminal", "xterm-256color"), ("xterm", "xterm")):
        done = subprocess.run(
            ["bash", "-c", line], env=dict(os.environ) | {"TERM": name}, capture_output=True, check=True
        )
        assert done.stdout.decode().strip() == used


def test_words_are_quoted_unless_they_are_one() -> None:
    assert ssh_line(["a b"]) == "a b"
    assert ssh_line(["echo", "a b"]) == "echo 'a b'"
