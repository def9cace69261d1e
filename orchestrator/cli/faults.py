"""Commands that tell everything that is wrong with their line at once, where click tells the first thing only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import click

from orchestrator.core.units import counted
from orchestrator.errors import BadInput

Check = Callable[[Mapping[str, Any]], list[str]]


class AllFaults(click.Command):
    """A command whose faults are told together, a line each.

    `check` takes the parameters that are right, the defaults of those that are not, and returns what is wrong beside
    (of a file that is named, say); it is asked only when the line has a fault, and must change nothing. It is not asked
    where a parameter of `decisive` is wrong: on that depends what is right of the others.
    """

    def __init__(self, *args: Any, check: Check | None = None, decisive: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._check = check
        self._decisive = decisive

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return what is left of the line. Raises UsageError for its only fault, BadInput for several."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            faults = self._all(ctx, given)
            if len(faults) < 2:
                raise
            raise _several(faults, ctx) from error

    def _all(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return every fault of a line; of one that cannot be taken apart, those met before."""
        trial = click.Context(self, parent=ctx.parent, info_name=ctx.info_name)
        faults: list[str] = []
        while True:
            try:
                given, rest, _ = self.make_parser(trial).parse_args(list(args))
                break
            except click.NoSuchOption as error:
                faults.append(_line(error))
                known = [word for word in args if word.partition("=")[0] != error.option_name]
                if known == args:
                    return faults
                args = known
            except click.UsageError as error:
                return [*faults, _line(error)]
        params: dict[str, Any] = {}
        undecided = False
        for param in self.get_params(trial):
            if param.is_eager or param.name is None:
                continue
            try:
                _, rest = param.handle_parse_result(trial, given, rest)
                params[param.name] = _known(trial.params.get(param.name))
            except click.UsageError as error:
                faults.append(_line(error))
                params[param.name] = () if param.multiple else _known(param.get_default(trial))
                undecided = undecided or param.name in self._decisive
        if not rest:
            return faults + (self._check(params) if self._check is not None and not undecided else [])
        # Words that are left over may be those of an option that is not known: then nothing is said of them, nor of
        # a file, which may be another than was meant.
        return faults if faults else [f"Got unexpected extra arguments ({' '.join(rest)})"]


def faults_of(error: BadInput) -> list[str]:
    """Return the faults that an error lists, or what it is itself, with what to do, in a line each."""
    return list(error.details) or [f"{error.message}: {error.hint}" if error.hint else error.message]


def lines_of(errors: Iterable[BadInput]) -> list[str]:
    """Return the faults of several errors, a line each."""
    return [line for error in errors for line in faults_of(error)]


def refuse_all(errors: Sequence[BadInput], ctx: click.Context) -> None:
    """Raise an error that is alone, and of several one that lists them all; nothing without any."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise _several(lines_of(errors), ctx)


def _several(faults: Sequence[str], ctx: click.Context) -> BadInput:
    return BadInput(
        f"nothing was done: {counted(len(faults), 'fault')}",
        f"mend what is listed; `{ctx.command_path} --help` shows how it is used",
        details=tuple(faults),
    )


class Commands(click.Group):
    """A group of such commands; alone it shows its help, as `orch` does."""

    command_class = AllFaults

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return what is left of the line. Ends here where there is none: newer click takes that for a fault."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)


def _known(value: Any) -> Any:
    """Return a value; None for what was not given and has no default: newer click has a word of its own for that."""
    return None if isinstance(value, Enum) and value.name == "UNSET" else value


def _line(error: click.UsageError) -> str:
    return error.format_message().rstrip(".")
