"""All nodes of a run in one tmux session of this machine: a window for each, attached to the node's own session by SSH.

The session goes away with the terminal that leaves it; on the nodes everything goes on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from orchestrator.core import ids
from orchestrator.node.tmux import Tmux

# The user's own server is left alone, unless it is the one this terminal shows.
SERVER = "orch-nodes"
# A node that cannot be reached, or goes away, leaves its window with the reason in it.
_STAY = '"$@" || { printf "\\nnode %s: the connection ended with %s; Return closes this window" "$0" "$?"; read -r _; }'


def open_windows(run_id: str, commands: Mapping[int, Sequence[str]], *, inside: bool) -> list[str]:
    """Make the session, a window `node-<rank>` for each of `commands`; return the command that shows it here.

    `inside` a tmux session it is one of the same server, which the terminal switches to. Raises NotFound, Unreachable
    or OrchError; then nothing is left of it.
    """
    # Of this process alone: two terminals may each have their own.
    name = f"{ids.session_name(run_id)}-nodes-{os.getpid()}"
    tmux = Tmux(None if inside else SERVER)
    begun = False
    try:
        for rank, argv in commands.items():
            begin = tmux.new_window if begun else tmux.new_session
            begin(name, f"node-{rank}", ["sh", "-c", _STAY, str(rank), *argv])
            begun = True
    except BaseException:
        tmux.kill_session(name)
        raise
    show = ["switch-client"] if inside else ["-L", SERVER, "attach-session"]
    # Set once it is shown: nobody is attached before.
    return ["tmux", "-u", *show, "-t", f"={name}", ";", "set-option", "-t", f"={name}:", "destroy-unattached", "on"]
