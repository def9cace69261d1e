"""What can go wrong with a host on request: its processes are stopped or killed, its SSH is cut, it is rebooted.

Runs in the daemon. Finds processes by the host's mark, and tells the host's supervisor by its `power` pipe what becomes
of SSH. May not touch what EC2 says of the instance: to EC2 it runs on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast, get_args

from orchestrator.errors import BadInput, OrchError
from orchestrator.sandbox import supervisor

Kind = Literal["partition", "hang", "freeze", "slow", "stop-sshd", "crash", "kill-tmux", "reboot"]
KINDS: tuple[str, ...] = get_args(Kind)
# What stays until it is healed; the others are done when they are done.
LASTING: frozenset[str] = frozenset({"partition", "hang", "freeze", "slow", "stop-sshd"})
# In place of an instance: the next host that boots, as soon as it does.
NEXT = "next"
# What a machine still has when it comes up again: the line to it is cut or not, whatever it does.
REBOOT_KEEPS: frozenset[str] = frozenset({"partition", "slow"})
# Of a host that is slow the training runs for so long, then stands still for so long (seconds), and again; and for so
# many times as long as it really ran, where a busy machine let it run longer than it should, but never for longer than
# the last: it must get on. Meanwhile what has only just begun is stopped as well, this often.
RUNS, STANDS, TIMES, AT_MOST, LOOKS = 0.005, 0.2, 40, 2.0, 0.05
# The node contract's own variable: whatever has it is the training, or was started by it.
_TRAINING = b"ORCH_STOP_FILE="
_SSHD = frozenset({"sshd", "sshd-session", "sshd-auth"})
_STOPPED = b"T"
_PASSES = 50


def check(kind: str) -> Kind:
    """Return `kind` as one there is. Raises BadInput."""
    if kind not in KINDS:
        raise BadInput(f"a host cannot be disturbed by {kind!r}", f"it can by {', '.join(KINDS)}")
    return cast(Kind, kind)


def begin(kind: Kind, mark: int, keeper: int, power: Path, lasting: frozenset[str]) -> None:
    """Do it to the host whose processes carry `mark`; its supervisor is the process `keeper`, reached by `power`.

    `lasting` are the disturbances in force, this one among them. Raises OrchError when the supervisor does not listen.
    """
    if kind == "reboot":
        _tell(power, f"{_ssh_state(lasting)}\nreboot")
    elif kind == "crash":
        _send(signal.SIGKILL, mark, keeper, _is_training)
    elif kind == "kill-tmux":
        _send(signal.SIGKILL, mark, keeper, _is_tmux)
    elif kind != "slow":
        _tell(power, _ssh_state(lasting))
        if kind == "stop-sshd":
            _send(signal.SIGKILL, mark, keeper, _is_sshd)
        else:
            _stop(kind, mark, keeper)


def drag(mark: int, keeper: int, goes_on: Callable[[], bool]) -> None:
    """Let the host's training run a small part of the time, while `goes_on`.

    Whom to stop is found while they stand: to look takes longer than they may run, on a busy machine by far.
    """
    ran = 0.0
    while goes_on():
        stood = time.monotonic()
        while time.monotonic() - stood < min(max(STANDS, TIMES * ran), AT_MOST):
            _send(signal.SIGSTOP, mark, keeper, _is_training)
            time.sleep(LOOKS)
        found = _find(mark, keeper, _is_training)
        began = time.monotonic()
        for pid in found:
            supervisor.send(signal.SIGCONT, pid, mark, mark + 1)
        time.sleep(RUNS)
        for pid in found:
            supervisor.send(signal.SIGSTOP, pid, mark, mark + 1)
        ran = time.monotonic() - began
    _send(signal.SIGCONT, mark, keeper, _is_training)


def heal(kind: Kind, mark: int, keeper: int, power: Path, lasting: frozenset[str]) -> None:
    """Undo a lasting disturbance; `lasting` are those that stay in force. Raises as `begin`."""
    if kind in _VICTIMS:
        _send(signal.SIGCONT, mark, keeper, _VICTIMS[kind])
        for other in lasting & _VICTIMS.keys():
            _stop(other, mark, keeper)
    _tell(power, _ssh_state(lasting))


def owns(mark: int, port: int) -> bool:
    """Tell whether a process that carries `mark` holds the connection whose local port is `port`."""
    inode = _inode(port)
    return inode is not None and any(_holds(pid, inode) for pid in supervisor.marked(mark, mark + 1))


def _ssh_state(lasting: frozenset[str]) -> str:
    if "stop-sshd" in lasting:
        return "ssh refuse"
    return "ssh hold" if lasting & {"partition", "freeze"} else "ssh serve"


def _tell(power: Path, word: str) -> None:
    try:
        pipe = os.open(power, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        raise OrchError("the host is not up: nothing runs on it", "`orch sandbox status` lists the hosts") from None
    try:
        os.write(pipe, f"{word}\n".encode())
    finally:
        os.close(pipe)


def _stop(kind: str, mark: int, keeper: int) -> None:
    """Stop the victims of a disturbance, looking again until none is found running: one may fork behind our back."""
    for _ in range(_PASSES):
        if not _send(signal.SIGSTOP, mark, keeper, lambda pid: _runs(pid) and _VICTIMS[kind](pid)):
            return


def _send(number: signal.Signals, mark: int, keeper: int, wanted: Callable[[int], bool]) -> bool:
    """Send a signal to the host's processes that are wanted; tell whether there were any."""
    found = _find(mark, keeper, wanted)
    for pid in found:
        supervisor.send(number, pid, mark, mark + 1)
    return bool(found)


def _find(mark: int, keeper: int, wanted: Callable[[int], bool]) -> list[int]:
    return [pid for pid in supervisor.marked(mark, mark + 1) if pid != keeper and wanted(pid)]


def _is_training(pid: int) -> bool:
    return any(item.startswith(_TRAINING) for item in _read(pid, "environ").split(b"\0"))


def _is_sshd(pid: int) -> bool:
    return _name(pid) in _SSHD


def _is_tmux(pid: int) -> bool:
    return _name(pid) == "tmux: server"


def _is_any(pid: int) -> bool:
    return pid > 0


def _runs(pid: int) -> bool:
    return _read(pid, "stat").rpartition(b") ")[2][:1] != _STOPPED


def _name(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip()


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _inode(port: int) -> str | None:
    """Return the socket with this local port on loopback, None when it is gone."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        address, _, number = fields[1].partition(":")
        if address.endswith("7F") and int(number, 16) == port and fields[9] != "0":
            return fields[9]
    return None


def _holds(pid: int, inode: str) -> bool:
    try:
        return any(link.readlink().name == f"socket:[{inode}]" for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


# Whom a disturbance stops. A partition stops sshd alone: sessions hang as on a line that was cut, their programs go on.
_VICTIMS: dict[str, Callable[[int], bool]] = {"partition": _is_sshd, "hang": _is_training, "freeze": _is_any}
