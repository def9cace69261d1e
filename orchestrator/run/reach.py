"""Reaching the nodes of a run as a person would: a shell, tmux, one command on all of them. Host keys are pinned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.contract import NodePaths
from orchestrator.core.ids import Keys
from orchestrator.errors import Exit, NotFound, OrchError
from orchestrator.node.ssh import KeyRefused
from orchestrator.node.ssh_command import known_hosts_lines, ssh_argv
from orchestrator.run.home import Home, write_private
from orchestrator.run.keys import NodeKey, NotOffered
from orchestrator.run.nodes import CONNECT_SECONDS, PROBE_SECONDS, address_of
from orchestrator.run.view import NodeView, RunView

UNREACHED = 255
WORKERS = 16


def ssh_command(
    view: RunView, home: Home, rank: int, remote: Sequence[str], *, tty: bool, session: Session, bucket: Bucket
) -> list[str]:
    """Return the OpenSSH command line to a node; where its key is not the run's own, it works for the next minute.

    Raises NotFound (no such node), NotOffered, Unreachable.
    """
    node = _node(view, rank)
    spec = view.spec
    address = _address(view, node)
    host_keys, key = _host_keys(bucket, spec.run_id, node), NodeKey(spec, session, home)
    if not key.is_the_runs:
        # OpenSSH would not say what a node lacks that refuses the key.
        key.connect(node.instance_id, address, host_keys, CONNECT_SECONDS).close()
    known = home.folder(spec.run_id) / f"known_hosts.{rank}"
    write_private(known, known_hosts_lines(address, spec.ssh_port, host_keys).encode())
    return ssh_argv(spec.ssh_user, address, spec.ssh_port, key.file, known, list(remote), tty=tty)


def exec_all(
    view: RunView,
    home: Home,
    command: str,
    *,
    ranks: Sequence[int] | None,
    timeout: float,
    on_line: Callable[[int, str], None],
    session: Session,
    bucket: Bucket,
) -> dict[int, int]:
    """Run a shell line on nodes at once, with the run's environment, and return each one's exit code.

    A node that could not be reached has UNREACHED and says why through `on_line`. Raises NotFound for an unknown rank.
    """
    nodes = (
        [_node(view, rank) for rank in ranks] if ranks is not None else [n for n in view.nodes if n.state == "running"]
    )
    if not nodes:
        raise NotFound(f"{view.spec.run_id} has no running node", "`orch status` shows where it is")
    paths = NodePaths(view.spec.run_id, view.ledger.generation)
    line = f'[ ! -r "$HOME/{paths.env_file}" ] || . "$HOME/{paths.env_file}"\n{command}\n'

    key = NodeKey(view.spec, session, home)

    def run(node: NodeView) -> int:
        try:
            host_keys = _host_keys(bucket, view.spec.run_id, node)
            with key.connect(node.instance_id, _address(view, node), host_keys, CONNECT_SECONDS) as connection:
                return connection.stream(line, lambda text: on_line(node.rank, text), timeout)
        except OrchError as error:
            on_line(node.rank, error.message)
            return UNREACHED

    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip((node.rank for node in nodes), pool.map(run, nodes), strict=True))


def check_key(view: RunView, home: Home, *, session: Session, bucket: Bucket) -> None:
    """Raise what would keep a scheduler of this machine out of every node: a permission, or what the image lacks.

    A machine with the run's own key, and nodes that do not answer, are no reason: the scheduler sees to these.
    """
    key = NodeKey(view.spec, session, home)
    if key.is_the_runs:
        return
    for node in view.nodes:
        try:
            host_keys = _host_keys(bucket, view.spec.run_id, node)
            key.connect(node.instance_id, _address(view, node), host_keys, PROBE_SECONDS).close()
        except KeyRefused:
            raise
        except OrchError as error:
            if isinstance(error, NotOffered) and error.exit_code is Exit.NO_PERMISSION:
                raise
        else:
            return


def _node(view: RunView, rank: int) -> NodeView:
    for node in view.nodes:
        if node.rank == rank:
            return node
    has = f"ranks 0 to {len(view.nodes) - 1}" if view.nodes else "no nodes"
    raise NotFound(f"{view.spec.run_id} has no node {rank}", f"it has {has}")


def _address(view: RunView, node: NodeView) -> str:
    if node.state != "running":
        raise NotFound(f"node {node.rank} is {node.state}", "`orch logs` has what it printed")
    return address_of(next(i for i in view.facts.instances if i.instance_id == node.instance_id), view.spec)


def _host_keys(bucket: Bucket, run_id: str, node: NodeView) -> tuple[str, ...]:
    try:
        text = bucket.get(Keys(run_id).host_key(node.instance_id)).decode()
    except NotFound as error:
        raise NotFound(f"node {node.rank} has not booted yet", "try again in a moment") from error
    return tuple(line for line in text.splitlines() if line.strip())
