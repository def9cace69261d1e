"""Reading the command line so that everything wrong with it is said at once, a line each: argparse stops at the first.

May not know what the flags mean. Of argparse it overrides the two methods that look at one value.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from trainer.errors import BAD_INPUT

_WRONG = object()


class Flags(argparse.ArgumentParser):
    """A parser that goes on after a value that makes no sense; its commands' parsers are of the same class.

    What leaves open how the rest is meant (a flag without its value, two that exclude each other) ends the reading, and
    is told with all that was found before it.
    """

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.exit_on_error = False
        self._faults: list[str] = []

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Return what argparse does; ends the process with usage, faults and BAD_INPUT where there are any."""
        try:
            found: tuple[Any, list[str]] = super().parse_known_args(args, namespace)
            if found[1]:
                self._faults.append(f"unrecognized arguments: {' '.join(found[1])}")
        except argparse.ArgumentError as error:
            self._faults.append(str(error))
        if self._faults:
            self._refuse()
        return found

    def error(self, message: str) -> NoReturn:  # type: ignore[misc]
        """Note what argparse found to be missing; `parse_known_args` tells it."""
        self._faults.append(message)

    def _refuse(self) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, "".join(f"{self.prog}: error: {fault}\n" for fault in self._faults))

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            self._faults.append(str(error))
            return _WRONG

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            if value is not _WRONG:
                super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if isinstance(action, argparse._SubParsersAction):
                raise  # which flags follow is then not known
            self._faults.append(str(error))
