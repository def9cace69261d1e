"""The node contract: where things lie on a node and what `setup` and `run` find in their environment. Pure.

Imports nothing outside the standard library, since it also runs on the nodes. Paths are relative to `$HOME` of the
node's ssh user; `docs/node-contract.md` describes them to the authors of training scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DATA = "data"


@dataclass(frozen=True, slots=True)
class NodePaths:
    """Folders and files of one run and generation on a node, relative to `$HOME`."""

    run: str
    generation: int

    @property
    def root(self) -> str:
        """Everything of the run."""
        return f"orch/{self.run}"

    @property
    def bundle(self) -> str:
        """The unpacked bundle: `agent/` (orchestrator, libtmux) and `workdir/`; written by user-data at boot."""
        return f"{self.root}/bundle"

    @property
    def epoch(self) -> str:
        """The highest scheduler epoch seen (an integer); commands of a lower one are refused."""
        return f"{self.root}/epoch"

    @property
    def deadline(self) -> str:
        """The Unix time (an integer) at which the machine's own timer ends it; modified whenever that is armed."""
        return f"{self.root}/deadline"

    @property
    def checkpoints(self) -> str:
        """ORCH_CHECKPOINT_DIR."""
        return f"{self.root}/checkpoints"

    @property
    def generation_dir(self) -> str:
        """Everything of the generation."""
        return f"{self.root}/gen-{self.generation}"

    @property
    def logs(self) -> str:
        """ORCH_LOG_DIR; `run.log` in it is the output of `setup` and `run`, everything in it goes to S3."""
        return f"{self.generation_dir}/logs"

    @property
    def progress(self) -> str:
        """ORCH_PROGRESS_FILE."""
        return f"{self.generation_dir}/progress.jsonl"

    @property
    def stop(self) -> str:
        """ORCH_STOP_FILE."""
        return f"{self.generation_dir}/stop"

    @property
    def save(self) -> str:
        """ORCH_SAVE_FILE."""
        return f"{self.generation_dir}/save"

    @property
    def times(self) -> str:
        """When each stage of the node's life began, a line each: `<generation> <stage> <Unix time>` (`core.beacon`)."""
        return f"{self.root}/times"

    @property
    def node_json(self) -> str:
        """What the agent needs to know (`agent.config.NodeConfig`), written by the start command."""
        return f"{self.generation_dir}/node.json"

    @property
    def env_file(self) -> str:
        """Shell exports of the contract and of `envs`."""
        return f"{self.generation_dir}/env.sh"

    @property
    def secrets_file(self) -> str:
        """Shell exports of the secrets, mode 0600."""
        return f"{self.generation_dir}/secrets.sh"

    @property
    def stage_file(self) -> str:
        """One word: the stage `run.sh` is in (starting, preflight, staging, setup, running)."""
        return f"{self.generation_dir}/stage"

    @property
    def started_file(self) -> str:
        """Unix time with fraction at which `run` began."""
        return f"{self.generation_dir}/started"

    @property
    def pid_file(self) -> str:
        """Process id of `run.sh`."""
        return f"{self.generation_dir}/run.pid"

    @property
    def exit_file(self) -> str:
        """`<code> <stage>`, written by `run.sh` when it ends."""
        return f"{self.generation_dir}/exit"


def torchrun_args(num_nodes: int, procs_per_node: int, rank: int, master_addr: str, master_port: int) -> str:
    """Return ORCH_TORCHRUN_ARGS: a static rendezvous, no restarts (the orchestrator decides about those)."""
    return (
        f"--nnodes={num_nodes} --nproc-per-node={procs_per_node} --node-rank={rank} "
        f"--master-addr={master_addr} --master-port={master_port} --max-restarts=0"
    )


def environment(
    paths: NodePaths, *, rank: int, node_ips: Sequence[str], procs_per_node: int, master_port: int, device: str
) -> dict[str, str]:
    """Return the contract's variables; values that begin with `$HOME/` are expanded by the node's shell."""
    home = "$HOME"
    return {
        "ORCH_RUN_ID": paths.run,
        "ORCH_NODE_RANK": str(rank),
        "ORCH_NUM_NODES": str(len(node_ips)),
        "ORCH_NODE_IPS": " ".join(node_ips),
        "ORCH_PROCS_PER_NODE": str(procs_per_node),
        "ORCH_GENERATION": str(paths.generation),
        "ORCH_DEVICE": device,
        "ORCH_DATA_DIR": f"{home}/{DATA}",
        "ORCH_CHECKPOINT_DIR": f"{home}/{paths.checkpoints}",
        "ORCH_LOG_DIR": f"{home}/{paths.logs}",
        "ORCH_PROGRESS_FILE": f"{home}/{paths.progress}",
        "ORCH_STOP_FILE": f"{home}/{paths.stop}",
        "ORCH_SAVE_FILE": f"{home}/{paths.save}",
        "ORCH_TORCHRUN_ARGS": torchrun_args(len(node_ips), procs_per_node, rank, node_ips[0], master_port),
        "MASTER_ADDR": node_ips[0],
        "MASTER_PORT": str(master_port),
        "NODE_RANK": str(rank),
    }
