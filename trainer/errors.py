"""The failures a person can cause or meet: one line that says what happened, one that says what to do.

May not import anything of the project; `cli` and `run` print them.
"""

from __future__ import annotations

DONE = 0
FAILED = 1
BAD_INPUT = 2
STOPPED = 75  # saved and interrupted (EX_TEMPFAIL of sysexits.h: try again later); torchrun itself turns it into 1
BUSY = 75  # the same of a packing that another process is at
INTERRUPTED = 130  # Ctrl-C


class TrainerError(Exception):
    """A failure with a cause (`message`) and a next step (`hint`), one line each; `exit_code` ends the process."""

    def __init__(self, message: str, hint: str = "", *, exit_code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def text(self) -> str:
        """Return what is printed on stderr."""
        return f"error: {self.message}" + (f"\n  {self.hint}" if self.hint else "")
