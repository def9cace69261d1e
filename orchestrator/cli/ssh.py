"""`orch ssh`: a shell on one node, or one command there, with the host key pinned that the node itself published."""

from __future__ import annotations

import os
import shlex
import sys

import click

from orchestrator.cli.attach import environment
from orchestrator.cli.context import open_home
from orchestrator.cli.options import RemoteCommand, cloud_option, complete_run, node_option, remote_words
from orchestrator.cli.runs import find_run


@click.command(cls=RemoteCommand)
@click.argument("words", nargs=-1, metavar="[RUN] [-- COMMAND...]", shell_complete=complete_run)
@node_option("Rank of the node.")
@cloud_option
@click.pass_context
def command(ctx: click.Context, *, words: tuple[str, ...], node: int, cloud: str | None) -> None:
    """Open a shell on a node of RUN (the newest where it is left out), or run COMMAND there and end with its exit code.

    Put `--` before the command. One word is a line for the node's shell; several are passed on as they are.
    """
    from orchestrator.run.reach import ssh_command

    run, remote = split_words(words, remote_words(ctx))
    home = open_home()
    found = find_run(home, run, cloud)
    place = found.open()
    line = [remote_line(remote)] if remote else []
    tty = not line and sys.stdin.isatty()
    argv = ssh_command(found.read(), home, node, line, tty=tty, session=place.session, bucket=place.bucket)
    os.execvpe(argv[0], argv, environment())  # noqa: S606 - no shell: the arguments go to ssh as they are


def split_words(words: tuple[str, ...], after: list[str] | None) -> tuple[str | None, list[str]]:
    """Return RUN and COMMAND: the first word is RUN, the others and what followed `--` are the command."""
    run = words[0] if words else None
    return run, [*words[1:], *(after or [])]


def remote_line(words: list[str]) -> str:
    """Return words as one line for the node's shell: a single word as it stands, several each quoted."""
    return words[0] if len(words) == 1 else shlex.join(words)
