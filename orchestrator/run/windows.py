"""All nodes of a run in one tmux session of this machine: a window for each, attached to the node's own session by SSH.

The session goes away with the terminal that leaves it; on the nodes everything goes on.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from orchestrator.core import ids
from orchestrator.node.tmux import Tmux
from orchestrator.run.detach import handed_on
from orchestrator.run.home import Home

# The user's own server is left alone, unless it is the one this terminal shows.
SERVER = "orch-nodes"
# A node that cannot be reached, or goes away, leaves its window with the reason in it, and a way to its replacement.
_STAY = """again=$1; shift; "$@" && exit
while printf '\\nnode %s: the connection ended with %s. Return connects to node %s again (to its replacement, once it \
runs), Ctrl-C closes this window\\n' "$0" "$?" "$0" && read -r _; do eval "$again" && exit; done"""


def open_windows(
    home: Home, run_id: str, commands: Mapping[int, Sequence[str]], again: Sequence[str], *, inside: bool
) -> list[str]:
    """Make the session, a window `node-<rank>` for each of `commands`; return the command that shows it here.

    `again` and a rank connect anew, to whatever machine has that rank by then. `inside` a tmux session it is one of the
    same server, which the terminal switches to. Raises NotFound, Unreachable or OrchError; then nothing is left of it.
    """
    # Of this process alone: two terminals may each have their own.
    name = f"{ids.session_name(run_id)}-nodes-{os.getpid()}"
    tmux = Tmux(None if inside else SERVER)
    begun = False
    try:
        for rank, argv in commands.items():
            begin = tmux.new_window if begun else tmux.new_session
            line = ["sh", "-c", _STAY, str(rank), shlex.join([*again, str(rank)]), *argv]
            begin(name, f"node-{rank}", line, env=handed_on(home))
            begun = True
    except BaseException:
        tmux.kill_session(name)
        raise
    show = ["switch-client"] if inside else ["-L", SERVER, "attach-session"]
    # Set once it is shown: nobody is attached before.
    return ["tmux", "-u", *show, "-t", f"={name}", ";", "set-option", "-t", f"={name}:", "destroy-unattached", "on"]
