"""The group: quick, complete, documented; and errors that are one line and an exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.cli.main import COMMANDS, HIDDEN, LazyGroup, orch
from orchestrator.errors import BadInput, Exit, NoPermission

ROOT = Path(__file__).parents[2]
HEAVY = ("boto3", "botocore", "paramiko", "torch", "moto", "pydantic", "rich", "yaml", "libtmux", "numpy")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(orch, list(arguments))


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `orch status` fail with `error`."""

    @click.command()
    @click.option("--json", is_flag=True)
    def command(json: bool) -> None:
        raise error

    monkeypatch.setattr(LazyGroup, "get_command", lambda self, ctx, name: command)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_is_full_or_may_not_be_written_is_no_bug_of_orch(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    raising(monkeypatch, OSError(number, os.strerror(number), "/home/me/.orch/runs"))
    result = run("status")
    assert result.exit_code == Exit.RUN_FAILED
    assert result.stderr.splitlines() == [
        f"orch: cannot read or write /home/me/.orch/runs: {os.strerror(number)}",
        "hint: mend it and try again; ORCH_HOME names another folder for orch's own files",
    ]
    raising(monkeypatch, OSError(errno.EBADF, "bad", "x"))
    assert run("status").exit_code == Exit.INTERNAL


def test_what_the_terminal_cannot_show_is_written_in_numbers() -> None:
    code = (
        "import click\nfrom orchestrator.cli.main import LazyGroup, orch\n"
        "@click.command()\ndef command(): click.echo('d\\u00e4ta \\u2714 \\udcff')\n"
        "LazyGroup.get_command = lambda *_: command\norch.main(['status'])"
    )
    for encoding, shown in {"latin-1": "d\xe4ta \\u2714 \\udcff", "utf-8": "d\xe4ta \u2714 \\udcff"}.items():
        environ = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=ROOT, env=environ)
        assert (done.stdout.decode(encoding), done.stderr) == (f"{shown}\n", b"")


def imported_by(*arguments: str) -> set[str]:
    code = (
        "import sys\nfrom orchestrator.cli.main import main\n"
        f"sys.argv = ['orch', *{list(arguments)!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.split())


def test_help_imports_nothing_heavy() -> None:
    assert not imported_by("--help") & set(HEAVY)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_every_command_imports_no_cloud_library(name: str) -> None:
    assert not imported_by(name, "--help") & {"boto3", "botocore", "paramiko", "torch", "moto"}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_each_of_its_options_has_help(name: str) -> None:
    context = click.Context(orch)
    command = orch.get_command(context, name)
    assert command is not None
    assert command.help
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert all(option.help for option in options), [option.name for option in options if not option.help]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(HIDDEN)))
def test_every_command_and_each_of_its_options_is_in_the_docs(name: str) -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert f"`orch {name}" in text
    section = text.partition(f"\n## `orch {name}")[2].partition("\n## ")[0]
    command = orch.get_command(click.Context(orch), name)
    assert command is not None
    commands = [command, *command.commands.values()] if isinstance(command, click.Group) else [command]
    for each in commands:
        for option in (p for p in each.params if isinstance(p, click.Option)):
            assert max(option.opts, key=len) in section, (each.name, option.opts)


def test_every_exit_code_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    assert all(f"| {code.value} |" in text for code in (*Exit,))
    assert f"| {main.BROKEN_PIPE} |" in text


def test_help_lists_every_command_but_the_hidden_one() -> None:
    text = run("--help").output
    assert all(f"  {name} " in text for name in COMMANDS if name not in HIDDEN)
    assert "schedule " not in text


@pytest.mark.parametrize("arguments", [(), ("dataset",), ("ami",), ("sandbox",)])
def test_no_arguments_show_the_help(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith(" ".join(["Usage: orch", *arguments]))
    assert "Commands:" in result.stdout or "Run:" in result.stdout


def test_an_unknown_command_names_the_nearest() -> None:
    result = run("lanch")
    assert result.exit_code == 2
    assert result.stderr == "orch: there is no command 'lanch'\nhint: did you mean launch? `orch --help` lists them\n"


@pytest.mark.parametrize("arguments", [("status", "--nope"), ("--nope",), ("launch",), ("completion", "tcsh")])
def test_wrong_usage_is_one_line_a_hint_and_exit_code_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0].startswith("orch: ")
    assert lines[-1].startswith("hint: `orch")
    assert result.stdout == ""


def test_an_error_is_its_line_its_details_its_hint_and_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, BadInput("file.yaml: 2 faults", "mend them", details=("name: missing", "run: missing")))
    result = run("status")
    assert result.exit_code == 2
    assert result.stderr == "orch: file.yaml: 2 faults\n  name: missing\n  run: missing\nhint: mend them\n"


def test_an_error_with_json_is_one_object_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, NoPermission("no", "ask", details=("a",)))
    result = run("status", "--json")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert json.loads(result.stderr) == {"error": "no", "hint": "ask", "details": ["a"], "exit_code": 4}


def test_wrong_usage_with_json_is_one_object_too() -> None:
    result = run("status", "--json", "--nope")
    assert json.loads(result.stderr)["exit_code"] == 2


def test_remote_text_in_an_error_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, BadInput("a\x1b[2J\x07b\nc", "h\x1b]0;t\x07", details=("\x1b[31mr\x07\x9b2Jed",)))
    assert run("status").stderr == "orch: ab c\n  red\nhint: h\n"


def test_a_bug_is_one_line_and_70_and_its_traceback_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError("division by zero"))
    result = run("status")
    assert result.exit_code == 70
    assert result.stderr.splitlines()[0] == "orch: unexpected ZeroDivisionError: division by zero"
    assert "Traceback" not in result.stderr
    assert "Traceback" in run("--debug", "status").stderr
    monkeypatch.setenv("ORCH_DEBUG", "1")
    assert "Traceback" in run("status").stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.exceptions.Abort()])
def test_ctrl_c_ends_with_130_and_no_traceback(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    raising(monkeypatch, error)
    result = run("status")
    assert result.exit_code == 130
    assert result.stderr.strip() == "orch: interrupted"


def test_what_a_command_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def command() -> Any:
        return 9

    monkeypatch.setattr(LazyGroup, "get_command", lambda self, ctx, name: command)
    assert run("gc").exit_code == 9


def test_a_reader_that_leaves_early_is_no_error() -> None:
    line = f"{sys.executable} -m orchestrator.cli.main schema | head -c 10; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_version_is_told() -> None:
    from orchestrator import __version__

    assert run("--version").output == f"orch {__version__}\n"
