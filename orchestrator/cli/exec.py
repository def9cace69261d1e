"""`orch exec`: one command on every node at once, each line with its rank; the worst exit code is the command's own."""

from __future__ import annotations

from collections import defaultdict
from threading import Lock

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.options import RemoteCommand, cloud_option, complete_run, json_option, remote_words
from orchestrator.cli.runs import find_run
from orchestrator.cli.ssh import remote_line, split_words
from orchestrator.errors import BadInput

UNREACHED = 255


@click.command(cls=RemoteCommand)
@click.argument("words", nargs=-1, metavar="[RUN] [--] COMMAND...", shell_complete=complete_run)
@click.option("--node", "nodes", type=click.IntRange(min=0), multiple=True, metavar="RANK", help="Only these ranks.")
@click.option("--timeout", default="10m", show_default=True, metavar="TIME", help="How long a node may take.")
@cloud_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    nodes: tuple[int, ...],
    timeout: str,
    cloud: str | None,
    as_json: bool,
) -> int:
    """Run COMMAND on every node of RUN (the newest where it is left out) and print each line with its rank.

    \b
    orch exec 'nvidia-smi -L | wc -l'         one word: a line for the nodes' shell
    orch exec RUN -- df -h /tmp               several: passed on as they are

    Ends with the worst exit code of any node; 255 is a node that could not be reached. With --json:
    {"run_id": ..., "nodes": [{"rank": 0, "exit_code": 0, "lines": [...]}]}.
    """
    from orchestrator.core.units import parse_duration
    from orchestrator.report.json import dumps
    from orchestrator.report.text import clean
    from orchestrator.run.reach import exec_all

    run, remote = _split(words, remote_words(ctx))
    try:
        seconds = parse_duration(timeout).total_seconds()
    except ValueError as error:
        raise BadInput(f"--timeout: {error}") from error
    home = open_home()
    found = find_run(home, run, cloud)
    place = found.open()
    lines: dict[int, list[str]] = defaultdict(list)
    lock = Lock()

    def on_line(rank: int, text: str) -> None:
        with lock:
            if as_json:
                lines[rank].append(clean(text))
            else:
                click.echo(f"[{rank}] {clean(text)}")

    codes = exec_all(
        found.read(),
        home,
        remote_line(remote),
        ranks=nodes or None,
        timeout=seconds,
        on_line=on_line,
        session=place.session,
        bucket=place.bucket,
    )
    if as_json:
        said = [{"rank": rank, "exit_code": code, "lines": lines[rank]} for rank, code in sorted(codes.items())]
        click.echo(dumps({"run_id": found.run_id, "nodes": said}))
    else:
        bad = {rank: code for rank, code in sorted(codes.items()) if code}
        for rank, code in bad.items():
            click.echo(f"[{rank}] exit code {code}", err=True)
    return worst(codes)


def _split(words: tuple[str, ...], after: list[str] | None) -> tuple[str | None, list[str]]:
    """Return RUN and COMMAND, which must be there: without `--`, a single word is the command, for the newest run."""
    if after is None and len(words) == 1:
        return None, list(words)
    run, remote = split_words(words, after)
    if not remote:
        raise BadInput("no command to run", "such as: orch exec RUN -- hostname")
    return run, remote


def worst(codes: dict[int, int]) -> int:
    """Return the largest exit code; a node without one (killed, not reached) counts as 255."""
    return max((code if 0 <= code <= UNREACHED else UNREACHED for code in codes.values()), default=0)
