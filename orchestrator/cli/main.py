"""The group `orch` and the one place where errors become a line and an exit code.

Imports nothing but click and the errors, so that `orch --help` is quick; the module of a command is imported to use it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from orchestrator import __version__
from orchestrator.errors import Exit, OrchError

# What shells give for a program that was writing when its reader left: 128 + SIGPIPE.
BROKEN_PIPE = 141
# What a disk or a folder does, not a mistake of ours.
DISK = frozenset({errno.EACCES, errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS})
# Section -> command -> its line in `orch --help`. The module of a command is `orchestrator.cli.<name>`.
SECTIONS: dict[str, dict[str, str]] = {
    "Run": {
        "launch": "Plan an experiment, ask, launch it and watch it to the end.",
        "plan": "Show what launching would do and cost; change nothing.",
        "simulate": "Replay recovery policies on recorded traces: time and cost.",
        "stop": "Save a checkpoint, end the run, terminate everything.",
        "extend": "Give a run that goes on more money or time.",
        "resume": "Go on with a run that ended early or lost its scheduler.",
    },
    "Look": {
        "status": "List runs: phase, time, dollars, accuracy.",
        "watch": "Follow a run live until it ends.",
        "logs": "Print what the nodes printed.",
        "cost": "Print the bill of a run, or of all by name, user, zone or type.",
        "prices": "Show spot prices of a type: zones, now, range, course.",
        "dawnbench": "Write a run's DAWNBench entry: its TSV and JSON.",
    },
    "Reach": {
        "attach": "Open the tmux session of a node.",
        "ssh": "Open a shell on a node, or run one command there.",
        "exec": "Run a command on every node.",
    },
    "House": {
        "gc": "Find and remove what runs left behind.",
        "dataset": "Build, list, show, stage and remove data sets in S3.",
        "ami": "Build, check, list and remove machine images.",
        "doctor": "Check this machine and the account.",
        "schema": "Print the JSON Schema of experiment files.",
        "sandbox": "Start, stop and disturb the sandbox: AWS on this machine.",
        "completion": "Print the completion script of a shell.",
    },
}
HIDDEN = {"schedule": "Schedule a run until it ends; what `launch` starts in the background."}
COMMANDS: dict[str, str] = {name: line for section in SECTIONS.values() for name, line in section.items()} | HIDDEN


class LazyGroup(click.Group):
    """A group that knows the names of its commands and imports one only to use it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of `orch --help`."""
        return [name for name in COMMANDS if name not in HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module = importlib.import_module(f"orchestrator.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail naming the nearest ones."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise OrchError(
                f"there is no command {name!r}", f"{meant}`orch --help` lists them", exit_code=Exit.BAD_INPUT
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of commands without importing any of them."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return the commands that begin with `incomplete`, again without importing them."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from click.shell_completion import CompletionItem

        names = self.list_commands(ctx)
        return [CompletionItem(name, help=COMMANDS[name]) for name in names if name.startswith(incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that went away is no error of ours."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _pipe_closed()

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        """Run `orch` and end the process with the exit code of docs/exit-codes.md."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        _show_all_characters()
        sys.exit(_guard(lambda: super(LazyGroup, self).main(arguments, prog_name or "orch", **extra), arguments))


def _guard(call: Any, arguments: Sequence[str]) -> int:
    """Return the exit code of `call`, having said in one line what went wrong."""
    as_json = "--json" in _before_dashes(arguments)
    debug = "--debug" in _before_dashes(arguments) or bool(os.environ.get("ORCH_DEBUG"))
    try:
        result = call()
        sys.stdout.flush()
        return int(result) if isinstance(result, int) else Exit.DONE
    except BrokenPipeError:
        return _pipe_closed()
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _say(OrchError("interrupted", exit_code=Exit.INTERRUPTED), as_json=as_json)
    except click.ClickException as error:
        return _say(_usage(error), as_json=as_json)
    except OrchError as error:
        if debug:
            _traceback()
        return _say(error, as_json=as_json)
    except Exception as error:
        if debug:
            _traceback()
        return _say(_unexpected(error), as_json=as_json)


def _unexpected(error: Exception) -> OrchError:
    if isinstance(error, OSError) and error.errno in DISK:
        what = f"{error.filename}: " if error.filename else ""
        hint = "mend it and try again; ORCH_HOME names another folder for orch's own files"
        return OrchError(f"cannot read or write {what}{error.strerror}", hint)
    hint = "this is a bug in orch; `orch --debug ...` or ORCH_DEBUG=1 shows where"
    return OrchError(f"unexpected {type(error).__name__}: {error}", hint, exit_code=Exit.INTERNAL)


def _show_all_characters() -> None:
    """Have what a terminal's encoding lacks, and names of files that are no text, written as numbers: `\\u2714`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _before_dashes(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments that are ours: what follows `--` belongs to a command on a node."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _usage(error: click.ClickException) -> OrchError:
    context = getattr(error, "ctx", None)
    hint = f"`{context.command_path} --help` shows how it is used" if context is not None else "`orch --help`"
    return OrchError(error.format_message().rstrip("."), hint, exit_code=Exit.BAD_INPUT)


def _say(error: OrchError, *, as_json: bool) -> int:
    """Print an error on stderr: lines for people, one JSON object where `--json` was asked for."""
    from orchestrator.report.text import clean

    message, hint = " ".join(error.message.split()), " ".join(error.hint.split())
    details = [clean(line) for line in error.details]
    if as_json:
        import json

        value = {"error": clean(message), "hint": clean(hint), "details": details, "exit_code": int(error.exit_code)}
        click.echo(json.dumps(value), err=True)
        return error.exit_code
    click.echo(f"orch: {clean(message)}", err=True)
    for line in details:
        click.echo(f"  {line}", err=True)
    if hint:
        click.echo(f"hint: {clean(hint)}", err=True)
    return error.exit_code


def _traceback() -> None:
    import traceback

    traceback.print_exc()


def _pipe_closed() -> int:
    """Keep the interpreter from complaining when it flushes stdout at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orch", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (also ORCH_DEBUG=1).")
@click.pass_context
def orch(ctx: click.Context, debug: bool) -> None:
    """Train on many GPUs of AWS spot instances: planned, priced, launched all or none, and billed truly.

    \b
    orch launch --nodes 16 imagenet18                  on AWS
    orch launch --cloud sandbox --nodes 16 imagenet18  on this machine, for nothing
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line of this process."""
    orch.main(prog_name="orch")


if __name__ == "__main__":
    main()
