"""tmux by libtmux, on this machine: sessions that outlive the terminal, and what became of what runs in them.

libtmux is used here and nowhere else, and only its plain commands: its object lists are empty on some errors, so that a
server that is not there could not be told from one that cannot be asked. Targets are exact names, never patterns.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import libtmux
from libtmux.common import tmux_cmd
from libtmux.exc import LibTmuxException, TmuxCommandNotFound

from orchestrator.errors import NotFound, OrchError, Unreachable

_NO_SERVER = ("no server running", "No such file or directory", "Connection refused")
_NO_TARGET = ("can't find",)
# Of a server whose last session has just ended: it took the command and dropped it. The next command finds it gone.
_LEAVING = ("server exited", "lost server")
_LEAVES_WITHIN = 0.2  # seconds
_FIELDS = ("#{window_name}", "#{pane_id}", "#{pane_pid}")
_SEPARATOR = "|"  # tmux prints tabs as underscores
# Reads the variables, removes their file, becomes the command: values are never on a command line, which all can read.
_WITH_VARIABLES = '. "$0" && rm -f -- "$0" && exec "$@"'


@dataclass(frozen=True, slots=True)
class Pane:
    """The first pane of a window: its id, and the process that runs in it."""

    id: str
    pid: int


class Tmux:
    """One tmux server: that of `socket_name`, or of the environment ($TMUX, $TMUX_TMPDIR) where it is None.

    Every method raises NotFound where there is no tmux, Unreachable where the server cannot be asked, and treats a
    server that is not running as one without sessions.
    """

    def __init__(self, socket_name: str | None = None) -> None:
        # No configuration of the user's: `destroy-unattached` or another default command would end what we start.
        self._server = libtmux.Server(socket_name=socket_name, config_file="/dev/null")

    def has_session(self, name: str) -> bool:
        """Tell whether the session exists."""
        return name in self._sessions()

    def new_session(
        self,
        name: str,
        window: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start a detached session with one window that runs `command` (an argument list, no shell line).

        `env` is set for the command alone, beside what the server hands on. Raises OrchError when the session exists.
        """
        _check_name(name)
        self._start("new-session", ["-s", name, "-n", window], command, env or {}, cwd)

    def new_window(
        self,
        name: str,
        window: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Add a window to a session, as `new_session` does. Raises NotFound when there is no such session."""
        _check_name(name)
        self._start("new-window", ["-t", f"={name}:", "-n", window], command, env or {}, cwd)

    def window_pane(self, name: str, window: str) -> Pane | None:
        """Return the first pane of the window of exactly that name, None when session or window do not exist."""
        _check_name(name)
        rows = self._ask("list-panes", "-s", "-t", f"={name}:", "-F", _SEPARATOR.join(_FIELDS))
        for row in rows or []:
            title, pane, pid = row.rsplit(_SEPARATOR, 2)
            if title == window:
                return Pane(pane, int(pid))
        return None

    def capture(self, name: str, window: str, lines: int = 200) -> str:
        """Return the last `lines` lines of a window, scrolled ones included. Raises NotFound when there is no such."""
        pane = self.window_pane(name, window)
        shown = self._ask("capture-pane", "-p", "-J", "-S", f"-{lines}", "-t", pane.id) if pane is not None else None
        if shown is None:
            raise NotFound(f"there is no window {window} in tmux session {name}", "`tmux ls` shows what there is")
        text = "\n".join(line.rstrip() for line in shown).rstrip("\n")
        return "\n".join(text.split("\n")[-lines:])

    def kill_session(self, name: str) -> None:
        """End a session and hang up on what runs in it; one that is not there is done."""
        _check_name(name)
        self._ask("kill-session", "-t", f"={name}")

    def kill_server_if_empty(self) -> bool:
        """End the server when it has no session left; tell whether there is none now."""
        if self._sessions():
            return False
        self._ask("kill-server")
        return True

    def _sessions(self) -> list[str]:
        return self._ask("list-sessions", "-F", "#{session_name}") or []

    def _start(
        self, verb: str, where: list[str], command: Sequence[str], env: Mapping[str, str], cwd: Path | None
    ) -> None:
        if not command:
            raise ValueError("no command to run")
        variables = _write_variables(env) if env else None
        argv = ["sh", "-c", _WITH_VARIABLES, str(variables), *command] if variables else list(command)
        # One word alone would be a line for a shell: `exec` makes several of it.
        line = argv if len(argv) > 1 else ["sh", "-c", 'exec "$0"', *argv]
        folder = ["-c", str(cwd)] if cwd is not None else []
        try:
            done = self._ask(verb, "-d", *where, *folder, "--", *line)
            if done is None and verb == "new-session":
                raise Unreachable("tmux could not start its server", "its socket folder must be writable: $TMUX_TMPDIR")
            if done is None:
                raise NotFound(f"there is no tmux session {where[1].strip('=:')}", "`tmux ls` shows what there is")
        except BaseException:
            if variables is not None:
                variables.unlink(missing_ok=True)
            raise

    def _ask(self, verb: str, *arguments: str, again: bool = True) -> list[str] | None:
        """Return the lines tmux printed, None when it says that server or target do not exist."""
        try:
            done: tmux_cmd = self._server.cmd(verb, *map(_literal, arguments))
        except TmuxCommandNotFound as error:
            raise NotFound("tmux is not installed", "install it: `apt install tmux`, `yum install tmux`") from error
        except (LibTmuxException, OSError) as error:
            raise Unreachable(f"tmux {verb} could not be run: {error}", "`tmux ls` shows more") from error
        said = " ".join(done.stderr)
        if done.returncode == 0:
            return list(done.stdout)
        if any(text in said for text in (*_NO_SERVER, *_NO_TARGET)):
            return None
        if again and any(text in said for text in _LEAVING):
            time.sleep(_LEAVES_WITHIN)
            return self._ask(verb, *arguments, again=False)
        if "duplicate session" in said:
            raise OrchError(f"tmux: {said}", "attach to it or choose another name")
        raise Unreachable(f"tmux {verb} failed: {said or f'exit code {done.returncode}'}", "`tmux ls` shows more")


def _check_name(name: str) -> None:
    """Refuse names that tmux would read as a target of another form."""
    if not name or any(letter in name for letter in ":.=$@%*?[") or name != name.strip():
        raise ValueError(f"{name!r} is not a name for a tmux session")


def _literal(word: str) -> str:
    """Return `word` so that tmux does not take a `;` at its end for the end of the command."""
    return word[:-1] + "\\;" if word.endswith(";") else word


def _write_variables(env: Mapping[str, str]) -> Path:
    """Write exports that only their owner can read and return the file; whatever runs first removes it."""
    with tempfile.NamedTemporaryFile("w", prefix="orch-env-", delete=False) as file:
        for name, value in env.items():
            if not name.isidentifier():
                raise ValueError(f"{name!r} is not the name of an environment variable")
            file.write(f"export {name}={shlex.quote(value)}\n")
    return Path(file.name)
