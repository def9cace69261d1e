"""Finding and killing every process of a sandbox, also when its daemon and supervisors were killed with SIGKILL.

Called from outside the sandbox. What is found: processes with the sandbox's mark (`supervisor`), those with a host's
environment, and everything that descends from either. A working directory or an open file below the sandbox proves
nothing: it may be the developer's own shell or editor. May never kill its caller, the caller's ancestors, or another
user's process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from orchestrator.errors import BadInput, Exit, OrchError
from orchestrator.sandbox import supervisor
from orchestrator.sandbox.supervisor import MARKER

_LISTEN = "0A"


def processes(folder: Path) -> dict[int, int]:
    """Return the living, marked processes of the sandbox in `folder`: process id -> host number (0: the daemon)."""
    low = supervisor.first_mark(str(folder))
    highest = low + supervisor.MARKS_PER_SANDBOX - 1
    return {pid: highest - mark for pid, mark in supervisor.marked(low, highest + 1).items()}


def sweep(folder: Path) -> None:
    """Kill every process of the sandbox in `folder`, in passes, until none is left.

    Raises BadInput when called from a host of that sandbox, OrchError when processes withstand.
    """
    low = supervisor.first_mark(str(folder))
    if low <= supervisor.mark_on(os.getpid()) < low + supervisor.MARKS_PER_SANDBOX:
        raise BadInput("this is a host of that sandbox, which cannot end itself", "run it outside the sandbox")
    spare = _lineage()
    deadline = time.monotonic() + supervisor.KILL_SECONDS
    clean = 0
    while clean < 2:
        found = {pid: start for pid, start in _find(folder).items() if pid not in spare}
        clean = 0 if found else clean + 1
        for pid, start in found.items():
            _kill(pid, start)
        if found:
            if time.monotonic() > deadline:
                raise OrchError(
                    f"processes of the sandbox cannot be killed: {' '.join(map(str, sorted(found)))}",
                    "see what they wait for: ps -o pid,stat,wchan,args",
                    exit_code=Exit.LEFT_BEHIND,
                )
            time.sleep(0.005)


def listeners(ports: set[int]) -> list[str]:
    """Return which `address:port` of 127.0.0.0/8 are listened on, among those ports: proof that nothing stayed."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, _, state = line.split()[1:4]
        address, port = local.split(":")
        if state == _LISTEN and address.endswith("7F") and int(port, 16) in ports:
            octets = [str(int(address[index : index + 2], 16)) for index in (6, 4, 2, 0)]
            found.append(f"{'.'.join(octets)}:{int(port, 16)}")
    return found


def _find(folder: Path) -> dict[int, str]:
    """Return process id -> start time of what `sweep` is to kill."""
    marker = f"{MARKER}={folder}/h/".encode()
    roots = set(processes(folder))
    parents: dict[int, int] = {}
    starts: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        with contextlib.suppress(OSError, IndexError):
            if supervisor.is_dead(pid):
                continue
            parents[pid], starts[pid] = _stat(pid)
            if entry.stat().st_uid == os.geteuid() and _has(entry / "environ", marker):
                roots.add(pid)
    return {pid: start for pid, start in starts.items() if _descends(pid, parents, roots)}


def _stat(pid: int) -> tuple[int, str]:
    """Return parent and start time (clock ticks since boot). Raises OSError when there is no such process."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace").rpartition(") ")[2].split()
    return int(fields[1]), fields[19]


def _kill(pid: int, start: str) -> None:
    """Kill a process unless the number belongs to a later one by now."""
    with contextlib.suppress(OSError, IndexError):
        handle = os.pidfd_open(pid)
        try:
            if _stat(pid)[1] == start:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _has(environ: Path, marker: bytes) -> bool:
    return any(item.startswith(marker) for item in environ.read_bytes().split(b"\0"))


def _descends(pid: int, parents: dict[int, int], roots: set[int]) -> bool:
    seen: set[int] = set()
    while pid in parents and pid not in seen:
        if pid in roots:
            return True
        seen.add(pid)
        pid = parents[pid]
    return False


def _lineage() -> set[int]:
    """Return this process and its ancestors."""
    pid, found = os.getpid(), set()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            pid = _stat(pid)[0]
        except (OSError, IndexError):
            break
    return found
