"""AWS errors as errors a person can act on, and the one way calls go out: translated, and patient when throttled.

Decides nothing but whether to repeat a request that was not even looked at.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from orchestrator.aws.codes import Kind, classify, missing_permission
from orchestrator.errors import BadInput, Exit, NoCapacity, NoPermission, NotFound, OrchError, Unreachable

T = TypeVar("T")

GET_CREDENTIALS = "run `aws configure` or `aws sso login`, or set AWS_PROFILE; `--cloud sandbox` needs none"
# Less than the life of a scheduler's lease: it must be renewed between two calls.
PATIENCE_SECONDS = 10.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0

_EXITS: dict[Kind, Exit] = {
    "no-capacity": Exit.NO_CAPACITY,
    "quota": Exit.NO_CAPACITY,
    "not-offered": Exit.NO_CAPACITY,
    "price-cap": Exit.NO_CAPACITY,
    "denied": Exit.NO_PERMISSION,
    "expired": Exit.NO_PERMISSION,
    "bad-request": Exit.BAD_INPUT,
    "throttled": Exit.UNREACHABLE,
    "unreachable": Exit.UNREACHABLE,
}


_Text = tuple[type[OrchError], str, str]
_NO_ROOM: _Text = (NoCapacity, "{action}: {code}: {line}", "try another zone or type, or ask AWS for a higher quota")
_NAMELESS: _Text = (OrchError, "{action} failed: {code}: {line}", "`--debug` shows the whole reply")
# What reading data in another bucket than that of the runs takes, the policy has only of buckets that it is told.
_OF_DATA = " (with `--data-bucket NAME` for data in a bucket of their own)"
_REFUSALS: dict[Kind, _Text] = {
    "denied": (
        NoPermission,
        "AWS refused {action} ({code}): {line}",
        "these credentials need the permission {needed}; `orch doctor --policy` prints a policy that has it",
    ),
    "expired": (
        NoPermission,
        "the AWS credentials have expired ({action}: {code})",
        "renew them, for example with `aws sso login`",
    ),
    "no-capacity": _NO_ROOM,
    "quota": _NO_ROOM,
    "not-offered": _NO_ROOM,
    "price-cap": _NO_ROOM,
    "bad-request": (BadInput, "{action}: {code}: {line}", "mend what the message names"),
    "gone": (NotFound, "{action}: {code}: {line}", "it may have been deleted meanwhile"),
    "throttled": (
        Unreachable,
        "AWS is throttling {action} ({code})",
        "too many calls at once in this account; try again",
    ),
    "unreachable": (Unreachable, "AWS could not answer {action} ({code}): {line}", "try again in a minute"),
}

# What boto3 raises without a reply, by the names of its exceptions and their bases (which saves importing botocore).
_SILENCES: tuple[tuple[frozenset[str], type[OrchError], str, str], ...] = (
    (frozenset({"NoCredentialsError"}), NoPermission, "no AWS credentials were found", GET_CREDENTIALS),
    (
        frozenset({"SSOError", "TokenRetrievalError", "LoginError", "NoAuthTokenError"}),
        NoPermission,
        "the AWS login is not valid any more: {line}",
        "run `aws sso login` (or `aws login`) again",
    ),
    (
        frozenset({"ProfileNotFound"}),
        NoPermission,
        "{line}",
        "set AWS_PROFILE to a profile that `aws configure list-profiles` shows",
    ),
    (
        frozenset(
            {"PartialCredentialsError", "CredentialRetrievalError", "ConfigParseError", "UnknownCredentialError"}
        ),
        NoPermission,
        "the AWS credentials cannot be read: {line}",
        GET_CREDENTIALS,
    ),
    (frozenset({"NoRegionError"}), NoPermission, "no AWS region is set", "set AWS_DEFAULT_REGION or give --region"),
    (
        frozenset({"ParamValidationError", "ValidationError"}),
        BadInput,
        "{action}: {line}",
        "mend what the message names",
    ),
    (
        frozenset(
            {
                "HTTPClientError",
                "ConnectionError",
                "IncompleteReadError",
                "MetadataRetrievalError",
                "RetriesExceededError",
                "urllib3.HTTPError",
            }
        ),
        Unreachable,
        "no answer to {action}: {line}",
        "check the network connection, then try again",
    ),
    (
        frozenset({"ResponseParserError", "ChecksumError"}),
        Unreachable,
        "the answer to {action} makes no sense: {line}",
        "try again; a proxy may stand in between",
    ),
)


class LaunchRefused(OrchError):
    """EC2 did not launch the gang, or (kind `throttled`, `expired`, `unreachable`) has not said whether it did."""

    def __init__(self, code: str, kind: Kind, message: str, hint: str = "") -> None:
        super().__init__(message, hint, exit_code=_EXITS.get(kind))
        self.code = code
        self.kind = kind


def error_code(error: BaseException) -> str:
    """Return the code AWS refused with (its HTTP status where the reply has none), "" for any other exception."""
    response: Any = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ""
    return str(response.get("Error", {}).get("Code") or _status(error))


def error_text(error: BaseException) -> str:
    """Return the sentence AWS gave with a refusal, "" for any other exception."""
    response: Any = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Message", "")) if isinstance(response, dict) else ""


def kind_of(error: BaseException) -> Kind:
    """Return what an exception of a call means: a refusal by its code, one without a reply by what was in the way."""
    code = error_code(error)
    if code:
        return _kind_of_refusal(code, error_text(error), _status(error))
    match translate(error, ""):
        case Unreachable():
            return "unreachable"
        case NoPermission():
            return "expired"  # there are no usable credentials right now, so nothing was sent
        case BadInput():
            return "bad-request"
    return "unknown"


def _kind_of_refusal(code: str, message: str, status: int) -> Kind:
    kind = classify(code, message)
    return "unreachable" if kind == "unknown" and status >= 500 else kind


def _status(error: BaseException) -> int:
    response: Any = getattr(error, "response", {})
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translate(error: BaseException, action: str) -> OrchError:
    """Return the error a person gets for what boto3 raised while calling `action` (`ec2:RunInstances`)."""
    code, message = error_code(error), error_text(error)
    if not code:
        return _no_reply(action, error)
    kind = _kind_of_refusal(code, message, _status(error))
    line = " ".join(message.split())[:400] or "no further explanation"
    if code == "RequestTimeTooSkewed":
        return NoPermission(f"AWS refused {action}: this machine's clock is wrong", "set the clock (ntp) and try again")
    made, text, hint = _REFUSALS.get(kind, _NAMELESS)
    needed = missing_permission(message) or action
    hint += _OF_DATA if kind == "denied" and needed in {"s3:ListBucket", "s3:GetObject"} else ""
    return made(text.format(action=action, code=code, line=line), hint.format(needed=needed))


def _no_reply(action: str, error: BaseException) -> OrchError:
    """Translate what boto3 raises when there is no reply with a code: no credentials, no network, no sense."""
    line = " ".join(str(error).split())[:300] or type(error).__name__
    names = {each.__name__ for each in type(error).__mro__}
    for exceptions, made, text, hint in _SILENCES:
        if names & exceptions:
            return made(text.format(action=action, line=line), hint)
    return OrchError(f"{action} failed: {line}", "`--debug` shows more")


@contextmanager
def calling(action: str) -> Iterator[None]:
    """Translate whatever boto3 raises inside into an OrchError that names `action`; other exceptions pass."""
    try:
        yield
    except OrchError:
        raise
    except Exception as error:
        if error_code(error) or type(error).__module__.startswith(("botocore", "boto3", "s3transfer", "urllib3")):
            raise translate(error, action) from error
        raise


def call(action: str, send: Callable[[], T], *, patience: float = PATIENCE_SECONDS) -> T:
    """Return `send()`, repeated with jittered backoff for up to `patience` seconds while AWS throttles.

    Raises NoPermission, NoCapacity, BadInput, NotFound, Unreachable, or a plain OrchError for codes nobody named.
    """
    with calling(action):
        return patiently(send, lambda error: kind_of(error) == "throttled", patience)


def call_pages(action: str, client: Any, operation: str, **request: Any) -> list[dict[str, Any]]:
    """Return every page of a listing (`operation` as botocore names it); otherwise as `call`."""
    paginator = client.get_paginator(operation)
    return call(action, lambda: list(paginator.paginate(**request)))


def patiently(send: Callable[[], T], again: Callable[[Exception], bool], patience: float) -> T:
    """Return `send()`, repeated with jittered backoff while `again(error)` and less than `patience` seconds passed.

    Raises what `send` raised last.
    """
    deadline = time.monotonic() + patience
    longest = FIRST_PAUSE
    while True:
        try:
            return send()
        except Exception as error:
            pause = random.uniform(longest / 2, longest)  # noqa: S311 - jitter, no secret
            if time.monotonic() + pause > deadline or not again(error):
                raise
        time.sleep(pause)
        longest = min(2 * longest, LONGEST_PAUSE)
