"""The experiment: what a run is to be, as frozen values that were checked, with the rules of every key. Pure.

`core.parse` turns a file into an `Experiment`, `core.overrides` lays profiles and the command line over it. This module
knows neither files nor lines; docs/experiment-file.md describes the keys to users.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from orchestrator.core import catalog
from orchestrator.core.ids import NAME_RULE, is_name
from orchestrator.core.units import MICRO, MicroUSD, parse_duration, to_micro

MAX_NODES = 512
MAX_DOLLARS = 10_000_000
MAX_ENV_VALUE = 32_768

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]{0,20}\.[a-z0-9-]{1,20}")
_IMAGE = re.compile(r"(?:ssm:/?)?[A-Za-z0-9][A-Za-z0-9()./@_ -]{1,199}")
_DATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_MOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_SOURCE = re.compile(r"s3://(?![^/]*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9!_.*'()/=+@:,-]*)?")
_DURATION = r"^(\d+|(?=\d)(\d+d)?(\d+h)?(\d+m)?(\d+s)?)$"

# Names the node contract, torchrun or the shell itself owns: setting them would break the run where it costs money.
_CONTRACT = re.compile(
    "ORCH_.*|HOME|(MASTER|GROUP|ROLE)_(ADDR|PORT|RANK|WORLD_SIZE)|(NODE_|LOCAL_)?RANK|(LOCAL_)?WORLD_SIZE"
    "|E?UID|PPID|BASHOPTS|SHELLOPTS|BASH_VERSINFO"
)
_CREDENTIALS = frozenset({"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})
_LATER_MODES = frozenset({"ebs", "fsx", "mount", "stream"})


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
    text = text if len(text) <= 60 else f"{text[:56]}..." + text[-1:] * isinstance(value, str)
    return f"the text {text}" if isinstance(value, str) else text


def _repeated(names: Sequence[str]) -> str | None:
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


def _nodes(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*\.\.\s*\d*\s*", value):
        raise ValueError(f"counts that may vary ({value.strip()}) are not there yet; give one number")
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
        raise ValueError(f"mode {value} is not there yet; use stage")
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


class _Model(BaseModel):
    """Frozen, no unknown keys; a key whose value is null counts as left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, Mapping) else data


class Option(_Model):
    """One instance type the gang may land on."""

    instance_type: Type = Field(description="An EC2 instance type, such as p3.16xlarge.")


class Resources(_Model):
    """The machines. `disk_size` is GiB of the root volume; `instance_type` may be written instead of `any_of`."""

    any_of: Annotated[tuple[Option, ...], Field(min_length=1, max_length=32)] = Field(
        description="Instance types to choose from, tried in order of the expected cost of the run."
    )
    use_spot: Annotated[bool, Strict()] = Field(True, description="Spot instances; false means on-demand ones.")
    image: Annotated[Text, _matches(_IMAGE, "an AMI id, ssm:NAME or the name of an image")] | None = Field(
        None, description="AMI id, ssm:NAME (a parameter that holds one), or the name of an image of this account."
    )
    disk_size: Annotated[int, Strict(), Field(ge=8, le=16_384)] = Field(100, description="GiB of a node's root volume.")

    @model_validator(mode="before")
    @classmethod
    def _expand_shortcut(cls, data: Any) -> Any:
        # With both given `instance_type` stays, and is refused as a key that does not belong.
        if not isinstance(data, Mapping) or data.get("any_of") is not None or data.get("instance_type") is None:
            return data
        rest = {key: value for key, value in data.items() if key != "instance_type"}
        return rest | {"any_of": [{"instance_type": data["instance_type"]}]}

    @field_validator("any_of")
    @classmethod
    def _each_once(cls, value: tuple[Option, ...]) -> tuple[Option, ...]:
        if twice := _repeated([option.instance_type for option in value]):
            raise ValueError(f"{twice} is listed twice")
        return value


class Data(_Model):
    """A data set: objects in S3 that every node finds under `$ORCH_DATA_DIR/<mount>`."""

    source: Annotated[Text, _matches(_SOURCE, "of the form s3://bucket/prefix")] = Field(
        description="s3://bucket/prefix"
    )
    mount: Annotated[Text, _matches(_MOUNT, "a relative path such as imagenet or sets/train")] = Field(
        "", description="Folder under $ORCH_DATA_DIR; by default the data set's name."
    )
    mode: Annotated[Literal["stage"], BeforeValidator(_mode)] = Field(
        "stage", description="stage: copied to local storage before setup."
    )


DataName = Annotated[Text, _matches(_DATA_NAME, "a name of letters, digits, '_' and '-', a letter or digit first")]


def _default_device(data: dict[str, Any]) -> str:
    known = [catalog.TYPES.get(option.instance_type) for option in data["resources"].any_of]
    return "cpu" if all(item is not None and not item.gpus for item in known) else "cuda"


def _default_grace(data: dict[str, Any]) -> timedelta:
    return min(timedelta(minutes=2), timedelta(seconds=max(1, data["max_duration"] * 2 // timedelta(seconds=3))))


class Experiment(_Model):
    """What to train, on what, for how long and for how much. `data` and `envs` keep the order of the file."""

    name: Name = Field(description=f"Names the run: {NAME_RULE}.")
    num_nodes: Annotated[int, Strict(), Field(ge=1, le=MAX_NODES), BeforeValidator(_nodes)] = Field(
        1, description="Machines; all of them start together or none does."
    )
    resources: Resources = Field(description="The machines to run on.")
    device: Literal["cuda", "cpu"] = Field(
        default_factory=_default_device,
        validate_default=True,
        description="Default: cuda, or cpu when no type listed has a GPU. cuda without a GPU fails.",
    )
    procs_per_node: Annotated[int, Strict(), Field(ge=1, le=256)] | None = Field(
        None, validate_default=True, description="Processes per node; default: the type's GPUs, 1 for device cpu."
    )
    data: Mapping[DataName, Data] = Field({}, description="Data sets that nodes find under $ORCH_DATA_DIR.")
    workdir: Annotated[Text, AfterValidator(_workdir)] | None = Field(
        None, description="Folder that is copied to the nodes and in which setup and run begin, relative to this file."
    )
    envs: Mapping[EnvName, EnvValue] = Field({}, description="Environment variables of setup and run.")
    secrets: tuple[EnvName, ...] = Field(
        (), description="Names of environment variables of the caller that setup and run see; values are never stored."
    )
    setup: Text = Field("", description="Shell commands every node runs before run.")
    run: Text = Field(description="Shell commands every node runs, all nodes at once.")
    max_duration: Duration = Field(timedelta(hours=12), description="The run is saved and ended before it is passed.")
    max_cost: Dollars | None = Field(None, description="Dollars; the run is saved and ended before they are passed.")
    spot_policy: Literal["spot", "on-demand", "auto"] = Field(
        "spot", description="auto tries spot offers first, then on-demand ones."
    )
    expected_duration: Duration | None = Field(
        None, description="Expected time on the first type listed; orders offers by the expected cost of the run."
    )
    checkpoint_grace: Duration = Field(
        default_factory=_default_grace,
        description="Time to save and exit when stopped; default 2m, or two thirds of max_duration where that is less.",
    )
    stall_timeout: Duration | None = Field(None, description="No step for so long is a failure; default: never.")
    retries: Annotated[int, Strict(), Field(ge=0, le=9)] = Field(2, description="Restarts after failures with steps.")
    profiles: Mapping[Name, Annotated[Mapping[str, Any], BeforeValidator(_overlay)]] = Field(
        {}, description="Overlays by name, such as the one `--cloud sandbox` applies; null removes a key."
    )

    @field_validator("device")
    @classmethod
    def _has_gpus(cls, value: str, info: ValidationInfo) -> str:
        without = [name for name in _types(info) if (known := catalog.TYPES.get(name)) is not None and not known.gpus]
        if value == "cuda" and without:
            raise ValueError(f"cuda needs a GPU, and {without[0]} has none; set device: cpu or name another type")
        return value

    @field_validator("procs_per_node")
    @classmethod
    def _is_known(cls, value: int | None, info: ValidationInfo) -> int | None:
        unknown = [name for name in _types(info) if name not in catalog.TYPES]
        if value is None and info.data.get("device") == "cuda" and unknown:
            raise ValueError(f"how many GPUs {unknown[0]} has is not known here; give procs_per_node")
        return value

    @field_validator("data")
    @classmethod
    def _mounts(cls, value: Mapping[str, Data]) -> Mapping[str, Data]:
        data = {name: item if item.mount else item.model_copy(update={"mount": name}) for name, item in value.items()}
        mounts = sorted(item.mount.split("/") for item in data.values())
        for first, second in pairwise(mounts):
            if second[: len(first)] == first:
                raise ValueError(f"two data sets are mounted at {'/'.join(first)}; give each a folder of its own")
        return data

    @field_validator("envs")
    @classmethod
    def _no_credentials(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if found := sorted(_CREDENTIALS & value.keys()):
            raise ValueError(f"{found[0]} is a credential, and envs are stored; name it under secrets")
        return value

    @field_validator("secrets")
    @classmethod
    def _given_once(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if twice := _repeated(value) or next((name for name in value if name in info.data.get("envs", {})), None):
            raise ValueError(f"{twice} is given twice")
        return value

    @field_validator("run")
    @classmethod
    def _does_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is blank; give the command every node runs")
        return value

    @field_validator("checkpoint_grace")
    @classmethod
    def _leaves_time(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        # One second is always allowed, since it is what the shortest of runs gets by default.
        if "max_duration" in info.data and value >= max(info.data["max_duration"], timedelta(seconds=2)):
            raise ValueError("leaves no time to train: it must be shorter than max_duration")
        return value

    @property
    def max_cost_micro(self) -> MicroUSD | None:
        """`max_cost` in micro-dollars."""
        return None if self.max_cost is None else to_micro(self.max_cost)

    def procs(self, instance_type: str) -> int:
        """Return the processes a node of `instance_type` runs: as given, else its GPUs, 1 for device cpu."""
        known = catalog.TYPES.get(instance_type)
        gpus = known.gpus if known is not None and self.device == "cuda" else 0
        return self.procs_per_node or max(1, gpus)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, every key present; `from_json` is its inverse."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Experiment:
        """Return the experiment written by `to_json`. Raises ValueError on anything else."""
        return cls.model_validate(value)


def _types(info: ValidationInfo) -> list[str]:
    resources = info.data.get("resources")
    return [option.instance_type for option in resources.any_of] if resources is not None else []
