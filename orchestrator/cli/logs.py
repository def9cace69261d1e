"""`orch logs`: what the nodes printed, from S3: it is there during the run and after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, json_option, node_option, run_argument
from orchestrator.cli.runs import find_run

if TYPE_CHECKING:
    from orchestrator.cli.context import Place


@click.command(cls=AllFaults)
@run_argument
@node_option("Only the node of this rank.", default=None)
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run ends.")
@cloud_option
@json_option
def command(*, run: str | None, node: int | None, follow: bool, cloud: str | None, as_json: bool) -> None:
    """Print the output of `setup` and `run` of RUN (the newest where it is left out), each line with its rank.

    Colours and control characters are taken out. With --json each line is one object: {"rank": 0, "line": "..."}.
    """
    from orchestrator.report.json import line as json_line
    from orchestrator.report.text import clean
    from orchestrator.run.logs import refuse_another_node

    found = find_run(open_home(), run, cloud)
    place = found.open()
    some = False
    for rank, text in _lines(place, found.run_id, node, follow=follow):
        some = True
        shown = clean(text)
        if as_json:
            click.echo(json_line({"rank": rank, "line": shown}))
        else:
            click.echo(shown if node is not None else f"[{rank}] {shown}")
    if not some:
        if node is not None:
            refuse_another_node(place.bucket, found.run_id, node)
        where = f"node {node}" if node is not None else "any node"
        click.echo(f"nothing was printed by {where} yet; logs reach S3 every few seconds", err=True)


def _lines(place: Place, run_id: str, node: int | None, *, follow: bool) -> Iterator[tuple[int, str]]:
    from orchestrator.run.logs import follow_logs, read_logs

    if not follow:
        return read_logs(place.bucket, run_id, node)
    from orchestrator.run.read import Reader

    reader = Reader(place.session, place.bucket, run_id)
    return follow_logs(place.bucket, run_id, node, lambda: reader.read().ended)
