"""The commands that go to a node over SSH, as scripts for the standard input of `bash -s`. Pure.

`start_script` begins a generation, `stop_script` asks its training to save and exit, `kill_script` ends it,
`arm_script` sets the machine's timer. They exit with 0 and print what they did (`started`, `stopping`, `killed`,
`armed`, or `already`), with REFUSED when this scheduler's epoch or generation is not the newest the node has seen, with
NOT_BOOTED when the node's bundle is not there. `probe_script` only looks. Each may be sent again at any time. On
standard input nothing shows in a process list: so secrets travel.

`setup` and `run` are shell text, run by `bash -eo pipefail` in the working directory: the first command that fails ends
it and gives the exit code. Each is a shell of its own; what `setup` exports is not seen by `run`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.core import ids
from orchestrator.core.contract import NodePaths, environment

REFUSED = 75
NOT_BOOTED = 69
NOT_ENDING = 70
DESERTED = 71

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOME = "$HOME/"


@dataclass(frozen=True, slots=True)
class DataSource:
    """A data set to stage: everything under `source` (`s3://bucket/prefix`) to `$ORCH_DATA_DIR/<mount>`.

    `wait`: `all` of it, or what its manifest says is needed `first`, before `setup` and `run` begin. `volume`: the
    label of the file system that it lies on ("": it is fetched); `blank_gib`: the size of the disk that becomes it.
    """

    name: str
    source: str
    mount: str
    wait: str = "all"
    volume: str = ""
    blank_gib: int = 0


@dataclass(frozen=True, slots=True)
class StartConfig:
    """Everything a node needs to begin a generation.

    `node_ips` are the gang's private addresses in order of rank. `restore_step`: the newest checkpoint that may be
    restored, None where there is none; `trained`: whether the training may have begun before. `preflight` is `off`,
    `auto` or `torch`, `network_gbit` what the instance type should give (0: not known), `efa` how many EFA interfaces
    the machine has. `grace`: how long the training may take to save and exit. `linger`: how long a node whose work is
    done and saved waits for a scheduler before it shuts itself down. `agent_pause`: seconds by which the agent starts
    after the training.
    """

    run: str
    generation: int
    epoch: int
    rank: int
    instance_id: str
    node_ips: tuple[str, ...]
    procs_per_node: int
    device: str
    bucket: str
    region: str
    command: str
    setup: str | None = None
    envs: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    data: tuple[DataSource, ...] = ()
    restore_step: int | None = None
    trained: bool = False
    grace: timedelta = timedelta(minutes=2)
    preflight: str = "off"
    network_gbit: float = 0.0
    efa: int = 0
    linger: timedelta = timedelta(minutes=10)
    beacon_seconds: float = 2.0
    agent_pause: float = 1.0

    def __post_init__(self) -> None:
        if not ids.is_run_id(self.run) or not 0 <= self.rank < len(self.node_ips):
            raise ValueError(f"no start for {self.run!r}, rank {self.rank} of {len(self.node_ips)}")
        for name in (*self.envs, *self.secrets):
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"{name!a} cannot be an environment variable")

    @property
    def paths(self) -> NodePaths:
        """Where the generation lies on the node."""
        return NodePaths(self.run, self.generation)


def start_script(config: StartConfig) -> bytes:
    """Return the script that starts setup and run, the agent and a shell in tmux session `orch-<run>`, once."""
    contract = environment(
        config.paths,
        rank=config.rank,
        node_ips=config.node_ips,
        procs_per_node=config.procs_per_node,
        master_port=ids.master_port(config.run, config.generation),
        device=config.device,
    )
    stages = ["preflight"] if config.preflight != "off" else []
    stages += ["stage"] if config.data or config.trained or config.restore_step is not None else []
    texts = {
        "session": ids.session_name(config.run),
        "stages": " ".join(stages),
        "pause": f"{config.agent_pause:g}",
        # The contract's variables come last: nothing a user sets may hide them. The defaults come first.
        "env_text": _exports(_defaults(config)) + _exports(config.envs) + _exports(contract, expand=True),
        "secrets_text": _exports(config.secrets),
        "setup_text": _text(config.setup or ""),
        "command_text": _text(config.command),
        "agent_text": _file("agent.sh"),
        "run_text": _file("run.sh"),
        "node_text": node_json(config),
    }
    return _script(config.run, config.generation, config.epoch, texts, "start.sh")


def stop_script(run: str, generation: int, epoch: int) -> bytes:
    """Return the script that makes the stop file appear."""
    return _script(run, generation, epoch, {}, "stop.sh")


def kill_script(run: str, generation: int, epoch: int, grace: timedelta = timedelta(seconds=5)) -> bytes:
    """Return the script that sends SIGTERM to every process of the training, and SIGKILL to what is left after `grace`.

    It takes up to `grace` and 5 s, and exits with NOT_ENDING when even that leaves a process.
    """
    return _script(run, generation, epoch, {"tenths": str(grace // timedelta(milliseconds=100))}, "kill.sh")


def arm_script(run: str, generation: int, epoch: int, deadline: datetime, left: timedelta) -> bytes:
    """Return the script that arms the machine's timer for `deadline` (with its time zone), which is `left` from now.

    It ends the machine up to a minute before, but not within the next one.
    """
    moment = {"deadline": str(int(deadline.timestamp())), "left": str(max(0, left // timedelta(seconds=1)))}
    return _script(run, generation, epoch, moment, "arm.sh")


def probe_script(run: str) -> bytes:
    """Return the script that exits with 0 when an agent or a training of the run lives on the node, else with DESERTED.

    It obeys any epoch, and waits for a command that is under way only when nothing lives.
    """
    if not ids.is_run_id(run):
        raise ValueError(f"{run!r} is not a run id")
    return f"run={run}\n{_file('probe.sh')}".encode()


def leave_script(run: str) -> bytes:
    """Return the script that removes what the run left on a machine of which an image is to be made; see leave.sh."""
    if not ids.is_run_id(run):
        raise ValueError(f"{run!r} is not a run id")
    return f"run={run}\n{_file('leave.sh')}".encode()


def node_json(config: StartConfig) -> str:
    """Return the file that `agent.config.NodeConfig` reads."""
    value = {
        "run": config.run,
        "generation": config.generation,
        "rank": config.rank,
        "instance_id": config.instance_id,
        "num_nodes": len(config.node_ips),
        "bucket": config.bucket,
        "region": config.region,
        "session": ids.session_name(config.run),
        "data": [asdict(source) for source in config.data],
        "restore_step": config.restore_step,
        "trained": config.trained,
        "node_ips": list(config.node_ips),
        "procs_per_node": config.procs_per_node,
        "device": config.device,
        "preflight": config.preflight,
        "network_gbit": config.network_gbit,
        "efa": config.efa,
        "beacon_seconds": config.beacon_seconds,
        "grace_seconds": config.grace.total_seconds(),
        "linger_seconds": config.linger.total_seconds(),
    }
    return json.dumps(value, indent=1) + "\n"


def _defaults(config: StartConfig) -> dict[str, str]:
    """Return what NCCL over EFA has to be told; all else its plugin (aws-ofi-nccl) knows of each instance type."""
    return {"FI_PROVIDER": "efa"} if config.efa and config.device == "cuda" else {}


def _script(run: str, generation: int, epoch: int, texts: Mapping[str, str], file: str) -> bytes:
    if not ids.is_run_id(run):
        raise ValueError(f"{run!r} is not a run id")
    values = {"run": run, "generation": str(int(generation)), "epoch": str(int(epoch)), **texts}
    assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return (assignments + _file("guard.sh") + _file(file)).encode()


def _exports(values: Mapping[str, str], *, expand: bool = False) -> str:
    """Return shell exports of values as they are; with `expand` a leading `$HOME/` means the node's."""
    lines = []
    for name, value in values.items():
        at_home = expand and value.startswith(_HOME)
        quoted = f'"$HOME"/{shlex.quote(value.removeprefix(_HOME))}' if at_home else shlex.quote(value)
        lines.append(f"export {name}={quoted}\n")
    return "".join(lines)


def _text(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text()
