"""`orch attach`: the tmux session of one node on this terminal, or those of all in windows side by side."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, node_option, run_argument
from orchestrator.cli.runs import find_run
from orchestrator.errors import BadInput, NotFound

# tmux needs the name of a terminal it knows; these say nothing, and nodes lack the descriptions of rarer ones.
NAMELESS = frozenset({"", "dumb", "unknown"})
PLAIN_TERMINAL = "xterm-256color"
WORKERS = 16
# A generation has a session of its own, of the same name: whoever looks at one is shown the next. Of a session only
# these three together say which it is. A terminal that leaves ends it, as does one that tmux cannot use.
_FOLLOW = """this() {{
  tmux list-sessions -F '#{{session_name}} #{{pid}} #{{session_id}} #{{session_created}}' 2>/dev/null |
    grep '^{session} '
}}
told=; while :; do
  if seen=$(this); then
    tmux -u attach-session -t ={session}; code=$?
    [ "$(this)" != "$seen" ] || exit $code
    told=
  fi
  [ -n "$told" ] || echo 'orch: no session of this run is on this node now; waiting for the next start. Ctrl-C leaves'
  told=1
  sleep 1
done"""


@click.command(cls=AllFaults)
@run_argument
@node_option("Rank of the node.")
@click.option("--all", "every", is_flag=True, help="All nodes, a window for each, in a tmux session of this machine.")
@cloud_option
def command(run: str | None, node: int, *, every: bool, cloud: str | None) -> None:
    """Open the tmux session of a node of RUN (the newest where it is left out): the training's own output, as it runs.

    Ctrl-B D leaves it running. The windows are train, agent and shell. With --all there is a window node-0, node-1 ...
    for each running node: Ctrl-B N and P go through them, Ctrl-B Ctrl-B goes to the node's own tmux, Ctrl-B D leaves
    all of them running. Inside tmux the terminal switches to it, and Ctrl-B L comes back. When the training is started
    again on a node, as after the loss of another, its new output follows.
    """
    from orchestrator.run.reach import ssh_command
    from orchestrator.run.windows import open_windows

    if not on_terminal():
        raise BadInput("attach needs a terminal", "`orch logs --follow` prints the output anywhere")
    home = open_home()
    found = find_run(home, run, cloud)
    place = found.open()
    view, line = found.read(), [remote_line(found.run_id)]

    def reach(rank: int) -> list[str]:
        return ssh_command(view, home, rank, line, tty=True, session=place.session, bucket=place.bucket)

    if every:
        ranks = [item.rank for item in view.nodes if item.state == "running"]
        if not ranks:
            raise NotFound(f"{found.run_id} has no running node", "`orch status` shows where it is")
        with ThreadPoolExecutor(WORKERS) as pool:
            commands = dict(zip(ranks, pool.map(reach, ranks), strict=True))
        again = [
            sys.executable,
            "-m",
            "orchestrator.cli.main",
            "attach",
            found.run_id,
            "--cloud",
            found.cloud,
            "--node",
        ]
        argv = open_windows(home, found.run_id, commands, again, inside="TMUX" in os.environ)
    else:
        argv = reach(node)
    os.execvpe(argv[0], argv, environment())  # noqa: S606 - no shell: the arguments go to ssh as they are


def on_terminal() -> bool:
    """Tell whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def remote_line(run_id: str) -> str:
    """Return what the node's shell runs: tmux at each start, under a terminal name the node has a description of."""
    from orchestrator.core.ids import session_name

    known = f'infocmp "$TERM" >/dev/null 2>&1 || export TERM={PLAIN_TERMINAL}'
    return f"{known}; {_FOLLOW.format(session=session_name(run_id))}"


def environment() -> dict[str, str]:
    """Return this process's environment with a terminal name that means something."""
    name = os.environ.get("TERM", "")
    return dict(os.environ) | {"TERM": PLAIN_TERMINAL if name in NAMELESS else name}
