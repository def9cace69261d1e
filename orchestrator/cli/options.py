"""Arguments and options that several commands share, worded once."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.faults import AllFaults
from orchestrator.errors import BadInput, Exit, OrchError

if TYPE_CHECKING:
    from orchestrator.core.caps import Caps

F = TypeVar("F", bound=Callable[..., Any])
_REMOTE = "orch.remote"
CLOUDS = ("aws", "sandbox")


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the runs this machine knows whose id begins with `incomplete`, newest first; asks no cloud."""
    home = Path(os.environ.get("ORCH_HOME") or Path.home() / ".orch").expanduser()
    found = [file.parent.name for file in home.glob("runs/*/run.json")]
    return sorted((run for run in found if run.startswith(incomplete)), key=lambda run: run[-20:], reverse=True)


def complete_experiment(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Return the experiments that come with orch, and files."""
    from click.shell_completion import CompletionItem

    folder = Path(__file__).parent.parent / "experiments"
    names = sorted(file.stem for file in folder.glob("*.yaml") if file.stem.startswith(incomplete))
    return [*(CompletionItem(name) for name in names), CompletionItem(incomplete, type="file")]


def can_ask() -> bool:
    """Tell whether there is somebody to answer a question."""
    return sys.stdin.isatty()


def need_yes(question: str, *, yes: bool, what: str, hint: str, declined: str, as_json: bool) -> None:
    """Return only with a yes, given before or at the terminal; `what` needs it.

    Raises BadInput where there is nobody to ask, OrchError (interrupted, `declined`) after a no.
    """
    if yes:
        return
    if not can_ask():
        raise BadInput(f"{what} needs a yes, and there is no terminal to ask on", hint)
    if not click.confirm(question, default=True, err=as_json):
        raise OrchError(declined, exit_code=Exit.INTERRUPTED)


class RemoteCommand(AllFaults):
    """A command whose line may end in `-- WORDS`, which are for a node and not for orch."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set aside what follows the first `--`; `remote_words` gives it back."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[_REMOTE] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


def remote_words(ctx: click.Context) -> list[str] | None:
    """Return what followed `--`, None when there was no `--`."""
    words: list[str] | None = ctx.meta.get(_REMOTE)
    return words


run_argument = click.argument("run", required=False, shell_complete=complete_run)
experiment_argument = click.argument("experiment", shell_complete=complete_experiment)
cloud_option = click.option(
    "--cloud", type=click.Choice(CLOUDS), help="Where: AWS, or the sandbox on this machine (also ORCH_CLOUD)."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout and nothing else there.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def node_option(help_text: str, default: int | None = 0) -> Callable[[F], F]:
    """Return the option `--node RANK`."""
    return click.option(
        "--node",
        type=click.IntRange(min=0),
        metavar="RANK",
        default=default,
        show_default=default is not None,
        help=help_text,
    )


def experiment_options(command: F) -> F:
    """Add what `plan` and `launch` lay over the experiment file; the file's own rules check the values."""
    for option in reversed(
        (
            click.option("-n", "--nodes", metavar="N", help="Number of nodes (num_nodes), or a range such as 8..16."),
            click.option("--name", metavar="NAME", help="Name of the run; by default the experiment's."),
            click.option("--max-cost", metavar="DOLLARS", help="Save and end the run before it costs more than this."),
            click.option(
                "--max-duration", metavar="TIME", help="Save and end the run after this long: 90s, 10m, 1h30m."
            ),
            click.option(
                "--spot-policy",
                metavar="POLICY",
                help="spot, on-demand, or auto: spot first, then on-demand, by the deadline.",
            ),
            click.option(
                "--set", "sets", metavar="KEY=VALUE", multiple=True, help="Set any key: --set resources.disk_size=200."
            ),
        )
    ):
        command = option(command)
    return command


def cap_options(command: F) -> F:
    """Add the caps of a run that exists already; `read_caps` reads them."""
    for option in (
        click.option("--max-duration", metavar="TIME", help="Since the launch or the last resume: 90s, 10m, 1h30m."),
        click.option("--max-cost", metavar="DOLLARS", help="Of the whole run, with all that it has cost already."),
    ):
        command = option(command)
    return command


def read_caps(max_cost: str | None, max_duration: str | None) -> tuple[Caps, list[str]]:
    """Return what `cap_options` were given, and what is wrong with them by the rules of experiment files."""
    from orchestrator.core.caps import Caps
    from orchestrator.core.fields import Dollars, Duration, read_value
    from orchestrator.core.units import to_micro

    cost, dear = (None, []) if max_cost is None else read_value(Dollars, max_cost)
    duration, long = (None, []) if max_duration is None else read_value(Duration, max_duration)
    faults = [f"max_cost: {fault}" for fault in dear] + [f"max_duration: {fault}" for fault in long]
    return Caps(None if cost is None else to_micro(cost), duration), faults


# For the order of runs by when they were launched: the end of an id is `-YYYYMMDD-HHMMSS-xxxx`.
ID_TAIL = re.compile(r"-\d{8}-\d{6}-[a-z0-9]{4}\Z")
