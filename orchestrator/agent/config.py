"""What the agent was told at the start: the node's `node.json`, written by `node.start`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.contract import DATA, NodePaths
from orchestrator.core.ids import bucket_and_prefix


@dataclass(frozen=True, slots=True)
class DataSource:
    """A data set to stage: everything under `s3://<bucket>/<prefix>` to `<mount>` in the data folder.

    With `wait_all` nothing starts before all of it is there, whatever its manifest says of phases. With `volume` it
    lies on a file system of that label, which is mounted; with `blank_gib` that is yet to be made and filled.
    """

    name: str
    bucket: str
    prefix: str
    mount: str
    wait_all: bool = False
    volume: str = ""
    blank_gib: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataSource:
        """Return the source; its prefix ends with `/` or is empty, since a source names a folder."""
        return cls(
            value["name"],
            *bucket_and_prefix(value["source"]),
            value["mount"],
            value.get("wait") == "all",
            value.get("volume", ""),
            value.get("blank_gib", 0),
        )


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node's part in one generation. `home` is the folder under which all paths of the node contract lie.

    `node_ips` are the gang's addresses in order of rank. `preflight` is `off`, `auto` or `torch`; `network_gbit` is
    what the instance type should give, 0 where that is not known; `trained` whether the training may have begun before;
    `efa` how many EFA interfaces the machine has.
    """

    home: Path
    run: str
    generation: int
    rank: int
    instance_id: str
    num_nodes: int
    bucket: str
    region: str
    session: str
    data: tuple[DataSource, ...]
    restore_step: int | None
    trained: bool
    beacon_seconds: float
    grace_seconds: float
    linger_seconds: float
    node_ips: tuple[str, ...]
    procs_per_node: int
    device: str
    preflight: str
    network_gbit: float
    efa: int

    @classmethod
    def load(cls, file: Path, home: Path) -> NodeConfig:
        """Return the configuration in `file`; keys it does not know are ignored. Raises ValueError or OSError."""
        try:
            value: dict[str, Any] = json.loads(file.read_text())
            known = {name: value[name] for name in cls.__slots__ if name not in {"home", "data", "node_ips"}}
            data = tuple(DataSource.from_json(item) for item in value["data"])
            return cls(home=home, data=data, node_ips=tuple(value["node_ips"]), **known)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is no node.json: {error!r}") from error

    @property
    def paths(self) -> NodePaths:
        """Where everything lies, relative to `home`."""
        return NodePaths(self.run, self.generation)

    @property
    def folder(self) -> Path:
        """The generation's folder."""
        return self.home / self.paths.generation_dir

    @property
    def data_folder(self) -> Path:
        """ORCH_DATA_DIR."""
        return self.home / DATA

    @property
    def staged(self) -> tuple[DataSource, ...]:
        """The data sets that are fetched from S3."""
        return tuple(source for source in self.data if source.blank_gib or not source.volume)

    @property
    def checkpoint_folder(self) -> Path:
        """ORCH_CHECKPOINT_DIR."""
        return self.home / self.paths.checkpoints

    @property
    def log_folder(self) -> Path:
        """ORCH_LOG_DIR."""
        return self.home / self.paths.logs

    @property
    def run_log(self) -> Path:
        """The output of `setup` and `run`."""
        return self.log_folder / "run.log"

    @property
    def staging_file(self) -> Path:
        """How far staging has come: `{"staged": bytes, "to_stage": bytes}`."""
        return self.folder / "staging.json"

    @property
    def preflight_file(self) -> Path:
        """What the preflight found so far (`core.preflight.Preflight`)."""
        return self.folder / "preflight.json"

    @property
    def times_file(self) -> Path:
        """When each stage of this node's life began."""
        return self.home / self.paths.times

    @property
    def stager_file(self) -> Path:
        """Process id of what stages the rest of the data while the training runs."""
        return self.home / self.paths.stager_file

    def secrets(self) -> tuple[str, ...]:
        """Return the values of the run's secrets, which may appear in nothing that leaves the node."""
        try:
            words = shlex.split((self.home / self.paths.secrets_file).read_text())
        except FileNotFoundError:
            return ()
        return tuple(word.partition("=")[2] for word in words if word != "export")
