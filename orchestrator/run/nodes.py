"""Sending commands down to the nodes of a run, by SSH: start, stop, kill, arm. Decides nothing, remembers nothing.

Which scripts are sent is `node.start`'s business, what they mean to the run `core.decide`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.catalog import TYPES
from orchestrator.core.facts import Facts, Instance
from orchestrator.core.ids import Keys
from orchestrator.core.manifest import NAME, newest
from orchestrator.core.spec import RunSpec
from orchestrator.errors import StaleEpoch, Unreachable
from orchestrator.node.ssh import Connection
from orchestrator.node.start import (
    DESERTED,
    REFUSED,
    DataSource,
    StartConfig,
    arm_script,
    kill_script,
    leave_script,
    probe_script,
    start_script,
    stop_script,
)
from orchestrator.run.home import Home
from orchestrator.run.keys import NodeKey

CONNECT_SECONDS = 20.0
COMMAND_SECONDS = 60.0
PROBE_SECONDS = 4.0
KILL_GRACE = timedelta(seconds=5)


class Deserted(Unreachable):
    """A node answers SSH, but neither agent nor training of the run lives there any more."""


class NodeCommands:
    """Commands to the nodes of one run under one epoch."""

    def __init__(self, spec: RunSpec, session: Session, home: Home) -> None:
        self._spec = spec
        self._home = home
        self._key = NodeKey(spec, session, home)

    def start(
        self,
        facts: Facts,
        instance_id: str,
        *,
        ranks: Mapping[str, int],
        generation: int,
        epoch: int,
        restore_step: int | None,
        trained: bool,
        preflight: bool,
    ) -> None:
        """Start setup and run on a node; one that has started already says so. Raises Unreachable, StaleEpoch."""
        by_id = {item.instance_id: item for item in facts.instances}
        ordered = sorted(ranks, key=lambda i: ranks[i])
        experiment = self._spec.experiment
        instance = by_id[instance_id]
        known = TYPES.get(instance.instance_type)
        config = StartConfig(
            run=self._spec.run_id,
            generation=generation,
            epoch=epoch,
            rank=ranks[instance_id],
            instance_id=instance_id,
            node_ips=tuple(str(by_id[i].private_ip) for i in ordered),
            procs_per_node=self._spec.procs_per_node,
            device=experiment.device,
            bucket=self._spec.bucket,
            region=self._spec.region,
            command=experiment.run,
            setup=experiment.setup,
            envs=experiment.envs,
            secrets=self._home.secrets(self._spec.run_id),
            data=self._data(),
            restore_step=restore_step,
            trained=trained,
            grace=experiment.checkpoint_grace,
            preflight=experiment.preflight if preflight else "off",
            network_gbit=known.network_gbit if known is not None else 0.0,
            efa=self._spec.efa_of(instance.instance_type, instance.zone),
        )
        self._send(facts, instance_id, start_script(config))

    def _data(self) -> tuple[DataSource, ...]:
        volumes = {volume.data: volume for volume in self._spec.volumes}
        found = []
        for name, data in self._spec.experiment.data.items():
            volume = volumes.get(name)
            place = (volume.label, 0 if volume.snapshot else volume.size_gib) if volume is not None else ("", 0)
            found.append(DataSource(name, data.source, data.mount or name, data.wait, *place))
        return tuple(found)

    def stop(self, facts: Facts, instance_id: str, generation: int, epoch: int) -> None:
        """Make the stop file appear on a node. Raises Unreachable, StaleEpoch."""
        self._send(facts, instance_id, stop_script(self._spec.run_id, generation, epoch))

    def kill(self, facts: Facts, instance_id: str, generation: int, epoch: int) -> None:
        """End what is left of the training on a node. Raises Unreachable, StaleEpoch."""
        self._send(facts, instance_id, kill_script(self._spec.run_id, generation, epoch, KILL_GRACE))

    def arm(self, facts: Facts, instance_id: str, generation: int, epoch: int, deadline: datetime) -> None:
        """Arm a node's timer anew. Raises Unreachable, StaleEpoch."""
        left = deadline - facts.server_time
        self._send(facts, instance_id, arm_script(self._spec.run_id, generation, epoch, deadline, left))

    def probe(self, facts: Facts, instance_id: str) -> None:
        """Ask a node whether agent or training live there. Raises Unreachable, Deserted."""
        connection = self._connect(facts, instance_id, PROBE_SECONDS)
        try:
            result = connection.run("bash -s", probe_script(self._spec.run_id), PROBE_SECONDS)
        finally:
            connection.close()
        if result.code == DESERTED:
            raise Deserted(f"{instance_id} has neither agent nor training any more", "it is replaced")

    def leave(self, facts: Facts, instance_id: str) -> None:
        """Remove what the run left on a node, and the keys that open it. Raises Unreachable."""
        self._send(facts, instance_id, leave_script(self._spec.run_id))

    def _connect(self, facts: Facts, instance_id: str, seconds: float) -> Connection:
        instance = next(item for item in facts.instances if item.instance_id == instance_id)
        address = address_of(instance, self._spec)
        return self._key.connect(instance_id, address, facts.nodes[instance_id].host_keys, seconds)

    def _send(self, facts: Facts, instance_id: str, script: bytes) -> None:
        connection = self._connect(facts, instance_id, CONNECT_SECONDS)
        try:
            result = connection.run("bash -s", script, COMMAND_SECONDS)
        finally:
            connection.close()
        if result.code == REFUSED:
            raise StaleEpoch(f"{instance_id} obeys a newer scheduler", "`orch watch` shows the run")
        if result.code != 0:
            last = (result.err.strip() or result.out.strip() or "no output").splitlines()[-1]
            raise Unreachable(f"{instance_id}: a command ended with code {result.code}: {last}", "it is sent again")


def address_of(instance: Instance, spec: RunSpec) -> str:
    """Return the address at which this caller reaches a node. Raises Unreachable when EC2 gives none."""
    address = instance.private_ip if spec.ssh_address == "private" else instance.public_ip
    if address is None:
        raise Unreachable(
            f"{instance.instance_id} has no {spec.ssh_address} address",
            "set ssh_address in the config file of $ORCH_HOME to the one that its subnet gives",
        )
    return address


def newest_step(bucket: Bucket, run_id: str) -> int | None:
    """Return the step of the newest checkpoint that has a manifest, None when there is none."""
    prefix = Keys(run_id).checkpoints
    folders = (item.key.removeprefix(prefix).split("/") for item in bucket.list(prefix))
    steps = {int(parts[0]) for parts in folders if len(parts) == 2 and parts[1] == NAME and parts[0].isdigit()}
    return newest(steps, set())
