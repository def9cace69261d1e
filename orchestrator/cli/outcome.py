"""How the end of a run becomes an exit code and the last thing that is printed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from orchestrator.errors import Exit, OrchError

if TYPE_CHECKING:
    from orchestrator.core.ledger import Verdict
    from orchestrator.run.view import RunView

CODES: dict[str, Exit] = {
    "finished": Exit.DONE,
    "failed": Exit.RUN_FAILED,
    "no-capacity": Exit.NO_CAPACITY,
    "interrupted": Exit.INTERRUPTED_BY_EC2,
    "stopped": Exit.STOPPED,
    "capped": Exit.STOPPED,
}
TAIL_SHOWN = 20


def exit_code(verdict: Verdict) -> Exit:
    """Return the exit code of a run that ended so."""
    from orchestrator.aws.codes import classify

    # A launch that EC2 refused for what the account may not do is a matter of permission, not of the training.
    if verdict.kind == "failed" and verdict.code and classify(verdict.code) in {"denied", "expired"}:
        return Exit.NO_PERMISSION
    return CODES[verdict.kind]


def conclude(view: RunView, *, as_json: bool, stop_is_done: bool = False, one_line: bool = False) -> int:
    """Print the bill and how the run ended, and return 0; a run that did not finish raises OrchError instead.

    With `stop_is_done` a run that was stopped is what was asked for. With `one_line` the JSON is a line after others.
    """
    from orchestrator.report.bill import show_bill
    from orchestrator.report.console import make_console
    from orchestrator.report.json import dumps, line
    from orchestrator.report.lines import summary

    console = make_console()
    if as_json:
        click.echo(line(view.report()) if one_line else dumps(view.report()))
    else:
        show_bill(console, view.bill.to_json())
        console.print(summary(view), style="bold")
    verdict, again = view.verdict, view.spec.build_command
    if verdict is not None and again and "`orch resume" in verdict.hint:
        verdict = replace(verdict, hint=f"{again} begins anew")
    if verdict is not None and not (stop_is_done and exit_code(verdict) is Exit.STOPPED):
        raise_unless_done(verdict)
    if verdict is not None and not as_json:
        console.print(verdict.message)
    return Exit.DONE


def raise_unless_done(verdict: Verdict) -> None:
    """Raise OrchError when a run did not finish: how it ended, with the last words of the node where it began."""
    code = exit_code(verdict)
    if code is Exit.DONE:
        return
    said = tuple(verdict.details[-TAIL_SHOWN:])
    where = "" if verdict.rank is None else f"[{verdict.rank}] "
    raise OrchError(verdict.message, verdict.hint, exit_code=code, details=tuple(where + line for line in said))
