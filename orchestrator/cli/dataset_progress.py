"""How work on a data set is shown, and what is said at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click

from orchestrator.errors import Exit, OrchError

if TYPE_CHECKING:
    from orchestrator.datasets.build import Built
    from orchestrator.datasets.progress import Progress

AGAIN = "the same command goes on where it was"


@contextmanager
def shown(*, as_json: bool) -> Iterator[Progress]:
    """Have progress shown, bars on a terminal, else lines; and say what ends it early."""
    from orchestrator.report.console import make_console
    from orchestrator.report.progress import Bar, Lines

    console = make_console()
    plain = as_json or not sys.stdout.isatty() or console.is_dumb_terminal
    try:
        with nullcontext(Lines(click.echo, as_json=as_json)) if plain else Bar(console) as progress:
            yield progress
    except KeyboardInterrupt:
        raise OrchError("interrupted", AGAIN, exit_code=Exit.INTERRUPTED) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        raise OrchError(f"cannot read or write {what}{error.strerror or error}", f"mend it; {AGAIN}") from error


def tell_built(built: Built, moved: str, *, as_json: bool, run: str = "") -> None:
    """Say that a data set is ready; `moved` is what was done with its bytes, `run` the run that packed it."""
    made = built.dataset
    if as_json:
        from orchestrator.report.json import line

        value = made.to_json() | {"moved_bytes": built.moved, "kept_bytes": built.kept, "built": built.fresh}
        value["left_out"] = list(built.left_out)
        click.echo(line(value | ({"run_id": run} if run else {})))
        return
    from orchestrator.core.units import format_size
    from orchestrator.report.text import clean

    for image in built.left_out if run or not built.fresh else ():  # one machine has said so as it packed
        click.echo(f"left out: {clean(image)}")
    if built.fresh:
        click.echo(f"{made.reference} is ready: {made.url}")
        kept = f"; {format_size(built.kept)} were there already" if built.kept or not run else ""
        click.echo(f"{moved} {format_size(built.moved)}{kept}")
    else:
        click.echo(f"{made.name} is up to date: {made.reference}, {made.url}; --force builds anew")
    click.echo(f"an experiment names it so: data: {{{made.name}: {{source: dataset:{made.name}}}}}")
