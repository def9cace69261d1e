"""The kinds of values that an experiment's keys take: what each may be, and the words that refuse another. Pure.

`core.experiment` puts them together; nothing here knows of one key beside another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    Strict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from orchestrator.core.ids import NAME_RULE, is_name
from orchestrator.core.units import MICRO, parse_duration, to_micro

MAX_NODES = 512
MAX_DOLLARS = 10_000_000
MAX_ENV_VALUE = 32_768

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]{0,20}\.[a-z0-9-]{1,20}")
# An image whose name has blanks, as EC2 allows, goes by its id: two words are a slip more often than a name.
_IMAGE = re.compile(
    r"ami-[0-9a-f]{1,17}|ssm:/?[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*|(?!ami-|ssm:)[A-Za-z0-9][A-Za-z0-9()./@_-]{1,127}"
)
_DATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_MOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_BUCKET = re.compile(r"(?![^/]*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SOURCE = re.compile(
    rf"s3://{_BUCKET.pattern}(?:/[A-Za-z0-9!_.*'()/=+@:,-]*)?"
    r"|dataset:[a-z][a-z0-9-]{0,39}(?:@[0-9a-f]{4,64})?"
)
_RANGE = re.compile(r"\s*(\d{1,6})\s*\.\.\s*(\d{1,6})\s*", re.ASCII)
_DURATION = r"^(\d+|(?=\d)(\d+d)?(\d+h)?(\d+m)?(\d+s)?)$"

# Names the node contract, torchrun or the shell itself owns: setting them would break the run where it costs money.
_CONTRACT = re.compile(
    "ORCH_.*|HOME|(MASTER|GROUP|ROLE)_(ADDR|PORT|RANK|WORLD_SIZE)|(NODE_|LOCAL_)?RANK|(LOCAL_)?WORLD_SIZE"
    "|E?UID|PPID|BASHOPTS|SHELLOPTS|BASH_VERSINFO"
)
_LATER_MODES = frozenset({"fsx", "mount", "stream"})


def show(value: object) -> str:
    """Return a value for a message: one line of ASCII, at most about 60 characters, containers by kind only."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a huge number"
    text = ascii(value) if isinstance(value, str) else ascii(str(value))[1:-1]
    return text if len(text) <= 60 else f"{text[:56]}..." + text[-1:] * isinstance(value, str)


def read_value(kind: Any, value: object) -> tuple[Any, list[str]]:
    """Return `value` as one of these kinds, None where it is none; and what is wrong with it, in words."""
    try:
        return TypeAdapter(kind).validate_python(value), []
    except ValidationError as error:
        return None, [item["msg"].removeprefix("Value error, ") for item in error.errors()]


def faults_of_each(kind: Any, values: Sequence[str]) -> list[str]:
    """Return what is wrong with values that are to be of a kind, and each there once."""
    faults = [fault for value in values for fault in read_value(kind, value)[1]]
    twice = repeated(values)
    return faults + ([f"{twice} is there twice"] if twice else [])


def repeated(names: Sequence[str]) -> str | None:
    """Return the first name that is there more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _clean(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("holds half a surrogate pair, which is no character")
    return text


def _matches(pattern: re.Pattern[str], rule: str) -> AfterValidator:
    def check(text: str) -> str:
        # `..` would climb out of a folder wherever the text becomes part of a path.
        if pattern.fullmatch(text) is None or ".." in text.split("/"):
            raise ValueError(f"must be {rule}, not {show(text)}")
        return text

    return AfterValidator(check)


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"must be {NAME_RULE}, not {show(text)}")
    return text


def _env_name(text: str) -> str:
    # The text itself is not shown: someone may have put a secret where its name belongs.
    if _ENV_NAME.fullmatch(text) is None:
        raise ValueError("must be the name of an environment variable: letters, digits and '_', no digit first")
    if _CONTRACT.fullmatch(text):
        raise ValueError(f"{text} is set on every node by orch, torchrun or the shell; use another name")
    return text


def _env_value(value: object) -> object:
    if value is None:
        raise ValueError("has no value; write '' for an empty one")
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value) if isinstance(value, int | float | Decimal) else value
    if isinstance(text, str) and len(text) > MAX_ENV_VALUE:
        raise ValueError(f"is longer than {MAX_ENV_VALUE} characters; put it in a file of the workdir")
    return text


def node_range(value: object) -> tuple[int, int] | None:
    """Return least and most of a count that may vary (`8..16`), None for anything else."""
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    least, most = int(found[1]), int(found[2])
    return (least, most) if least <= most else None


def _nodes(value: object) -> object:
    if node_range(value) is not None:
        raise ValueError("is a range, which says the least already; leave min_nodes out")
    if isinstance(value, str) and ".." in value:
        raise ValueError(f"must be a range such as 8..16, the smaller number first, not {show(value)}")
    return value


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        value = value // timedelta(seconds=1)
    if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, str) and len(value) > 40):
        raise ValueError(f"must be a duration such as 90s, 10m, 1h30m or 2d, not {show(value)}")
    return parse_duration(value)


def exact_duration(value: timedelta) -> str:
    """Return a duration of whole seconds without loss, as `parse_duration` reads it: `1h30m`, `2d`."""
    seconds = value // timedelta(seconds=1)
    parts = zip("dhms", (seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60, seconds % 60), strict=True)
    return "".join(f"{count}{unit}" for unit, count in parts if count)


def _dollars(value: object) -> Decimal:
    fault = ValueError(f"must be an amount of dollars such as 60 or 12.50, not {show(value)}")
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise fault
    try:
        amount = Decimal(str(value).strip())
    except ArithmeticError:
        raise fault from None
    if not amount.is_finite():
        raise fault
    if not Decimal("0.01") <= amount <= MAX_DOLLARS:
        raise ValueError(f"must be from 0.01 to {MAX_DOLLARS} dollars, not {show(value)}")
    return Decimal(to_micro(amount)) / MICRO


def _workdir(text: str) -> str:
    if not text or text[0] in "-~/" or not text.isprintable() or set(text) & set("$`\\"):
        raise ValueError(f"must be a folder relative to this file, such as . or ../code, not {show(text)}")
    return text


def _mode(value: object) -> object:
    if isinstance(value, str) and value in _LATER_MODES:
        raise ValueError(f"mode {value} is not there yet; use stage or ebs")
    return value


def _overlay(value: object, depth: int = 0) -> object:
    """Return a profile's overlay in JSON's own types, so that writing and reading it changes nothing."""
    if depth > 30:
        raise ValueError("is nested too deeply")
    if isinstance(value, Mapping):
        return {str(key): _overlay(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_overlay(item, depth + 1) for item in value]
    return value if value is None or isinstance(value, bool | int) else str(value)


Text = Annotated[str, Strict(), AfterValidator(_clean)]
Name = Annotated[Text, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9-]{0,39}$"})]
EnvName = Annotated[
    Text,
    AfterValidator(_env_name),
    WithJsonSchema({"type": "string", "pattern": "^(?!ORCH_)[A-Za-z_][A-Za-z0-9_]*$"}),
]
EnvValue = Annotated[
    Text, BeforeValidator(_env_value), WithJsonSchema({"anyOf": [{"type": t} for t in ("string", "number", "boolean")]})
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(exact_duration, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _DURATION}, {"type": "integer", "minimum": 1}]}),
]
Dollars = Annotated[
    Decimal,
    BeforeValidator(_dollars),
    PlainSerializer(lambda amount: format(amount.normalize(), "f"), return_type=str),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0.01}, {"type": "string"}]}),
]
Type = Annotated[Text, _matches(_INSTANCE_TYPE, "an EC2 type such as p3.16xlarge")]
Image = Annotated[Text, _matches(_IMAGE, "an AMI id, ssm:NAME or the name of an image (no blanks)")]
Source = Annotated[
    Text,
    _matches(
        _SOURCE,
        "of the form s3://bucket/prefix or dataset:NAME[@VERSION], a version being 4 to 64 digits of 0-9 and a-f",
    ),
]
BucketName = Annotated[Text, _matches(_BUCKET, "the name of a bucket: 3 to 63 of a-z, 0-9, '.' and '-'")]
Mount = Annotated[
    Text, _matches(_MOUNT, "a relative path of letters, digits, '.', '_' and '-', such as imagenet or sets/train")
]
Mode = Annotated[Literal["stage", "ebs", "auto"], BeforeValidator(_mode)]
DataName = Annotated[Text, _matches(_DATA_NAME, "a name of letters, digits, '_' and '-', a letter or digit first")]
Workdir = Annotated[Text, AfterValidator(_workdir)]
Count = Annotated[int, Strict(), Field(ge=1, le=MAX_NODES)]
NumNodes = Annotated[
    Count,
    BeforeValidator(_nodes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_NODES},
                {"type": "string", "pattern": r"^\d+\.\.\d+$"},
            ]
        }
    ),
]
Overlay = Annotated[Mapping[str, object], BeforeValidator(_overlay)]
