"""The errors a user can meet: one line that says what happened, one that says what to do, one exit code.

May not import anything of the project; every layer raises these, only `cli` prints them.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `orch`, documented in docs/exit-codes.md."""

    DONE = 0
    RUN_FAILED = 1
    BAD_INPUT = 2
    NO_CAPACITY = 3
    NO_PERMISSION = 4
    INTERRUPTED_BY_EC2 = 5
    STOPPED = 6
    NOT_FOUND = 7
    UNREACHABLE = 8
    LEFT_BEHIND = 9
    INTERNAL = 70
    INTERRUPTED = 130


class OrchError(Exception):
    """A failure with a cause and a next step.

    `message` says what happened, `hint` what to do about it; both are one line. `exit_code` is what the process
    ends with. `details` are further lines (one per fault) that belong to the message.
    """

    exit_code: Exit = Exit.RUN_FAILED

    def __init__(
        self, message: str, hint: str = "", *, exit_code: Exit | None = None, details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        if exit_code is not None:
            self.exit_code = exit_code


class BadInput(OrchError):
    """A file, flag or environment variable is wrong; nothing was done. `details` lists every fault."""

    exit_code = Exit.BAD_INPUT


class NoCapacity(OrchError):
    """EC2 has no capacity or the account no quota for the whole gang in any zone or type asked for."""

    exit_code = Exit.NO_CAPACITY


class NoPermission(OrchError):
    """Credentials are missing, expired, or lack a permission (named in the message)."""

    exit_code = Exit.NO_PERMISSION


class NotFound(OrchError):
    """The run, node, bucket, image or data set named by the user does not exist."""

    exit_code = Exit.NOT_FOUND


class Unreachable(OrchError):
    """A service or node did not answer in time."""

    exit_code = Exit.UNREACHABLE


class PreconditionFailed(OrchError):
    """A conditional S3 write lost: somebody else wrote the object first."""


class StaleEpoch(OrchError):
    """This scheduler's lease was taken over; it must stop acting at once."""
