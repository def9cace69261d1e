"""The SSH key with which this machine opens the nodes of a run: the run's own, or one that EC2 Instance Connect admits.

The run's own private key lies where the run was launched. Any other machine makes one of its own and has EC2 put its
public half on a node, for a minute, before each connection. No private key ever leaves a machine.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.instance_connect import push_key
from orchestrator.aws.session import Session
from orchestrator.core.ids import resource_name
from orchestrator.core.spec import RunSpec
from orchestrator.errors import BadInput, OrchError
from orchestrator.node.ssh import Connection, KeyRefused, connect, generate_key, public_half
from orchestrator.run.caller import caller_cidr
from orchestrator.run.home import Home


class NotOffered(OrchError):
    """This machine's key was not put on a node: a fault of AWS or of a permission, which says nothing of the node."""


class NodeKey:
    """The key of this machine to the nodes of one run; may be used from any thread."""

    def __init__(self, spec: RunSpec, session: Session, home: Home) -> None:
        self._spec = spec
        self._session = session
        self._home = home
        self._lock = threading.Lock()
        self._let_in = False

    @property
    def file(self) -> Path:
        """Where the private key lies, made where this machine has none yet."""
        file = self._home.private_key(self._spec.run_id)
        if not file.exists():
            self._home.keep_private_key(self._spec.run_id, generate_key()[0])
        return file

    @property
    def is_the_runs(self) -> bool:
        """Whether nodes are born with it: then nothing has to be pushed. Raises BadInput for a file that is no key."""
        return self._public.split()[:2] == self._spec.public_key.split()[:2]

    @property
    def _public(self) -> str:
        try:
            return public_half(self.file.read_text())
        except ValueError as error:
            raise BadInput(f"{self.file} is no SSH key", "remove it, and this machine makes one of its own") from error

    def offer(self, instance_id: str) -> None:
        """See that a node takes this key for the next minute. Raises NotOffered, BadInput (no key in its file)."""
        if self.is_the_runs:
            return
        try:
            with self._lock:
                if not self._let_in:
                    self._open_ssh()
                    self._let_in = True
            push_key(self._session, instance_id, self._spec.ssh_user, self._public)
        except OrchError as error:
            raise NotOffered(error.message, error.hint, exit_code=error.exit_code) from error

    def connect(self, instance_id: str, address: str, host_keys: Sequence[str], seconds: float) -> Connection:
        """Return a connection to a node, tried for `seconds`. Raises as `offer` and `node.ssh.connect` do."""
        self.offer(instance_id)
        spec = self._spec
        try:
            return connect(address, spec.ssh_port, spec.ssh_user, self.file.read_text(), host_keys, seconds)
        except KeyRefused as error:
            if self.is_the_runs:
                raise
            raise KeyRefused(
                f"{instance_id} takes no key from EC2 Instance Connect for {spec.ssh_user}",
                "its image needs the package ec2-instance-connect; the machine that launched the run gets in without",
            ) from error

    def _open_ssh(self) -> None:
        """Open the run's security group to this machine, too: at the launch it was opened to the launching one alone.

        Not in the ledger: it costs nothing, is the same however often it is done, and goes with the group.
        """
        spec, compute = self._spec, Compute(self._session)
        cidr = self._session.settings.ssh_cidr
        if cidr is None:
            cidr = caller_cidr("private" if spec.ssh_address == "private" else "public", compute.vpc_network())
        if cidr != spec.ssh_cidr:
            compute.open_ssh(resource_name(spec.run_id), spec.vpc, cidr, spec.ssh_port)
