"""The experiment: what a run is to be, as frozen values that were checked, with the rules of every key. Pure.

`core.fields` has the kinds of values, `core.parse` turns a file into an `Experiment`, `core.overrides` lays profiles
and the command line over it. This module knows neither files nor lines; docs/experiment-file.md describes the keys to
users.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationInfo, field_validator, model_validator

from orchestrator.core import catalog
from orchestrator.core.fields import (
    Count,
    DataName,
    Dollars,
    Duration,
    EnvName,
    EnvValue,
    Image,
    Mode,
    Mount,
    Name,
    NumNodes,
    Overlay,
    Source,
    Text,
    Type,
    Workdir,
    node_range,
    repeated,
)
from orchestrator.core.ids import NAME_RULE
from orchestrator.core.units import MicroUSD, to_micro

_CREDENTIALS = frozenset({"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})


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
    image: Image | None = Field(
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
        if twice := repeated([option.instance_type for option in value]):
            raise ValueError(f"{twice} is listed twice")
        return value


class Data(_Model):
    """A data set: objects in S3 that every node finds under `$ORCH_DATA_DIR/<mount>`."""

    source: Source = Field(description="s3://bucket/prefix, or dataset:NAME as `orch dataset` built it.")
    mount: Mount = Field("", description="Folder under $ORCH_DATA_DIR; by default the data set's name.")
    mode: Mode = Field(
        "auto",
        description="stage: copied to local storage; ebs: a volume of its snapshot on each node; auto: the cheaper.",
    )
    wait: Literal["first", "all"] = Field(
        "all",
        description="What setup and run wait for: all of the set, or what its manifest says is needed first. "
        "That is for scripts that wait for the rest themselves, as `python -m trainer` does.",
    )


def _default_device(data: dict[str, Any]) -> str:
    known = [catalog.TYPES.get(option.instance_type) for option in data["resources"].any_of]
    return "cpu" if all(item is not None and not item.gpus for item in known) else "cuda"


def _default_grace(data: dict[str, Any]) -> timedelta:
    return min(timedelta(minutes=2), timedelta(seconds=max(1, data["max_duration"] * 2 // timedelta(seconds=3))))


class Experiment(_Model):
    """What to train, on what, for how long and for how much. `data` and `envs` keep the order of the file."""

    name: Name = Field(description=f"Names the run: {NAME_RULE}.")
    num_nodes: NumNodes = Field(
        1, description="Machines; all of them start together or none does. 8..16: 16, or at least 8 where that is all."
    )
    min_nodes: Count | None = Field(
        None,
        validate_default=True,
        description="The least the run trains on; default: num_nodes, or as its range says.",
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
    workdir: Workdir | None = Field(
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
    stall_timeout: Duration | None = Field(
        None, description="No step for so long is a failure; default: by the pace it has shown, 5m at least."
    )
    preflight: Literal["auto", "torch", "off"] = Field(
        "auto",
        description="Checks of nodes and network before the training; auto: by torch too where device is cuda.",
    )
    retries: Annotated[int, Strict(), Field(ge=0, le=9)] = Field(2, description="Restarts after failures with steps.")
    capacity_wait: Duration | None = Field(
        None, description="Ask again for so long where no offer has room; default: 10m in a recovery, not at a launch."
    )
    profiles: Mapping[Name, Overlay] = Field(
        {}, description="Overlays by name, such as the one `--cloud sandbox` applies; null removes a key."
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_range(cls, data: Any) -> Any:
        # What is no range, or one beside min_nodes, stays, and is refused by the rule of its key.
        if not isinstance(data, Mapping) or data.get("min_nodes") is not None:
            return data
        found = node_range(data.get("num_nodes"))
        return data if found is None else {**data, "min_nodes": found[0], "num_nodes": found[1]}

    @field_validator("min_nodes")
    @classmethod
    def _is_no_more(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value > info.data.get("num_nodes", value):
            raise ValueError(f"must be at most num_nodes ({info.data['num_nodes']}), not {value}")
        return value

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
        if twice := repeated(value) or next((name for name in value if name in info.data.get("envs", {})), None):
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

    @property
    def nodes(self) -> str:
        """How many nodes, for people: `16`, or `8 to 16`."""
        most = str(self.num_nodes)
        return most if self.min_nodes in {None, self.num_nodes} else f"{self.min_nodes} to {most}"

    def how_many(self, noun: str) -> str:
        """Return the same with a noun that takes an s: `1 node`, `8 to 16 instances`."""
        return f"{self.nodes} {noun}{'' if self.num_nodes == 1 else 's'}"

    def procs(self, instance_type: str) -> int:
        """Return the processes a node of `instance_type` runs: as given, else its GPUs, 1 for device cpu."""
        known = catalog.TYPES.get(instance_type)
        gpus = known.gpus if known is not None and self.device == "cuda" else 0
        return self.procs_per_node or max(1, gpus)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, every key present, `min_nodes` as part of a range; `from_json` is its inverse."""
        value = self.model_dump(mode="json")
        nodes = self.num_nodes if self.min_nodes is None else f"{self.min_nodes}..{self.num_nodes}"
        return value | {"num_nodes": nodes, "min_nodes": None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Experiment:
        """Return the experiment written by `to_json`. Raises ValueError on anything else."""
        return cls.model_validate(value)


def _types(info: ValidationInfo) -> list[str]:
    resources = info.data.get("resources")
    return [option.instance_type for option in resources.any_of] if resources is not None else []
