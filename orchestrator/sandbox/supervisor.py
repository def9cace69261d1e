"""What lies under the hosts: a spawner that forks one supervisor per host, and how processes are found and killed.

Runs as `python -I -S supervisor.py` and may import only the standard library, and little of it: forking a supervisor
from a running interpreter costs a tenth of starting one. The spawner reads paths of `host.json` files (image.Plan) from
stdin and forks; supervisors write events (`<host number> up PID|off|failed REASON`) to stdout. Both pipes end at the
daemon; when the daemon dies, however it dies, every supervisor sees its end closed and takes its host down.

A supervisor listens for SSH connections and gives each to an own `sshd -i`, as socket activation does; it runs
user-data and keeps the shutdown timer. It is a subreaper, so no process of the host can leave it while it lives.

Every process of a sandbox carries a mark: a limit on file locks that Linux stopped enforcing long ago, still inherited
through fork, exec, setsid and a cleared environment, and readable for sshd too, whose environment is not.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet
    from typing import Any, NoReturn

RLIMIT_LOCKS = 10
MARKS_PER_SANDBOX = 1 << 16
KILL_SECONDS = 20.0
REBOOT_SECONDS = 2.0  # from the last process of a host that reboots to its next connection
MARKER = "ORCH_SANDBOX_HOST"  # the variable that holds its folder, on every host
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
# Ignored here, or perhaps by whoever started the sandbox, but never in what a host runs.
_NOT_INHERITED = (
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
)


def first_mark(folder: str) -> int:
    """Return the lowest mark of the sandbox that lives in `folder` (a resolved path): derived, so it cannot be lost."""
    digest = hashlib.sha256(os.fsencode(folder)).digest()
    return ((1 << 39) | (int.from_bytes(digest[:5], "big") >> 1)) * MARKS_PER_SANDBOX


def mark_of(folder: str, number: int) -> int:
    """Return the mark of host `number` (1...), or of the daemon (0). Descends: a limit can only ever be lowered."""
    if not 0 <= number < MARKS_PER_SANDBOX:
        raise ValueError(f"a sandbox has had its {MARKS_PER_SANDBOX - 1} hosts")
    return first_mark(folder) + MARKS_PER_SANDBOX - 1 - number


def mark_self(mark: int) -> None:
    """Give this process, and all that will descend from it, a mark. Raises OSError or ValueError where refused."""
    resource.setrlimit(RLIMIT_LOCKS, (mark, mark))


def become_subreaper() -> None:
    """Adopt every orphan among the descendants of this process; as SIGCHLD is ignored, the kernel buries them."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def mark_on(pid: int) -> int:
    """Return the mark a process carries; -1 for a process without one or gone."""
    try:
        return resource.prlimit(pid, RLIMIT_LOCKS)[1]
    except ProcessLookupError:
        return -1
    except PermissionError:
        return _mark_of_another_user(pid) if os.geteuid() == 0 else -1


def _mark_of_another_user(pid: int) -> int:
    """Return a mark the slow way: root may lack the right to ask for another user's limits, but may read them."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:  # noqa: PTH123
            hard = next(line for line in file if line.startswith(b"Max file locks")).split()[4]
    except (OSError, StopIteration):
        return -1
    return int(hard) if hard.isdigit() else -1


def is_dead(pid: int) -> bool:
    """Tell whether a process is gone, or has only to be buried by its parent.

    The first thread of a process may be a zombie while others still hold its sockets: that is not dead yet.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib would cost the spawner more than all else
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return True
    return not fields or (fields[0] in {b"Z", b"X"} and int(fields[17]) <= 1)


def marked(low: int, high: int) -> dict[int, int]:
    """Return the living processes (id -> mark) whose mark lies in low <= mark < high."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            mark = mark_on(int(name))
            if low <= mark < high and not is_dead(int(name)):
                found[int(name)] = mark
    return found


def kill_marked(low: int, high: int, spare: AbstractSet[int] = frozenset()) -> None:
    """Kill every process marked low <= mark < high and return once none is left. Raises TimeoutError naming the rest.

    Two clean looks in a row are asked for: a process may fork behind the back of one.
    """
    deadline = time.monotonic() + KILL_SECONDS
    clean = 0
    while clean < 2:
        found = [pid for pid in marked(low, high) if pid not in spare]
        clean = 0 if found else clean + 1
        for pid in found:
            send(signal.SIGKILL, pid, low, high)
        if found:
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes that cannot be killed: {' '.join(map(str, found))}")
            time.sleep(0.002)


def send(number: int, pid: int, low: int, high: int) -> None:
    """Send a signal to a process if it, and no later one of the same number, has a mark in low <= mark < high."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if low <= mark_on(pid) < high:
            signal.pidfd_send_signal(handle, number)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(handle)


def own_children() -> list[int]:
    """Return the processes whose parent is this process, whichever of its threads made or adopted them."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as file:  # noqa: PTH123
                found += map(int, file.read().split())
        except OSError:
            continue
    return found


def kill_children(spare: AbstractSet[int] = frozenset()) -> None:
    """Kill this process's children until none is left but `spare`; finds those that wiped their mark.

    Raises TimeoutError. Whatever a killed child leaves behind becomes a child of this process (a subreaper), and falls
    in the next pass.
    """
    deadline = time.monotonic() + KILL_SECONDS
    while found := [pid for pid in own_children() if pid not in spare and not is_dead(pid)]:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes that cannot be killed: {' '.join(map(str, found))}")
        time.sleep(0.002)


class Supervisor:
    """One host, from the moment its address listens to the moment its last process is dead."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.shutdown_at: float | None = None
        self.rebooting = False
        # serve: connections get an sshd; hold: they wait, as on a line that was cut; refuse: nobody listens.
        self.ssh = "serve"

    def run(self) -> None:
        """Boot, serve, and kill everything when told to, when the timer fires, or when the daemon is gone."""
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"orch-host", 0, 0, 0)
        become_subreaper()
        mark_self(self.plan["mark"])
        listener = self._listen()
        power = os.open(self.plan["power"], os.O_RDWR | os.O_NONBLOCK)
        emit(self.plan["number"], f"up {os.getpid()}")
        self._run_scripts(self.plan["every_boot"] + self.plan["first_boot"])
        self._serve(listener, power)
        self._kill_all()
        emit(self.plan["number"], "off")

    def _listen(self) -> socket.socket:
        listener = socket.create_server((self.plan["address"], self.plan["port"]), backlog=256)
        listener.setblocking(False)
        return listener

    def _kill_all(self) -> None:
        kill_marked(self.plan["mark"], self.plan["mark"] + 1, {os.getpid()})
        kill_children()

    def _serve(self, listener: socket.socket | None, power: int) -> None:
        """Serve until the host is to end; `listener` is None while SSH is refused."""
        while True:
            left = None if self.shutdown_at is None else self.shutdown_at - time.monotonic()
            if left is not None and left <= 0:
                break
            poll = select.poll()
            poll.register(0, 0)  # nothing but the hang-up
            poll.register(power, select.POLLIN)
            if listener is not None and self.ssh == "serve":
                poll.register(listener, select.POLLIN)
            ready = {number for number, _ in poll.poll(None if left is None else left * 1000 + 1)}
            if 0 in ready:
                break
            if power in ready:
                self._power(os.read(power, 4096))
                listener = self._obey(listener)
            elif listener is not None and listener.fileno() in ready:
                self._accept(listener)
        if listener is not None:
            listener.close()

    def _obey(self, listener: socket.socket | None) -> socket.socket | None:
        """Do what was asked of the host's SSH or power, and return what listens now."""
        if listener is not None and (self.rebooting or self.ssh == "refuse"):
            listener.close()
            listener = None
        if self.rebooting:
            # Home and address stay; memory, processes and timers do not. Of user-data only what is for every boot runs.
            self.rebooting, self.shutdown_at = False, None
            self._kill_all()
            time.sleep(REBOOT_SECONDS)
            self._run_scripts(self.plan["every_boot"])
        return self._listen() if listener is None and self.ssh != "refuse" else listener

    def _power(self, text: bytes) -> None:
        """Note what the shutdown shim (`in SECONDS`, `cancel`) or the daemon (`ssh STATE`, `reboot`) says, by line."""
        for line in text.decode(errors="replace").splitlines():
            if self.shutdown_at is not None and self.shutdown_at <= time.monotonic():
                return  # it goes down already, and nothing takes that back
            word, _, rest = line.partition(" ")
            if word == "cancel":
                self.shutdown_at = None
            elif word == "in" and rest.isdigit():
                self.shutdown_at = time.monotonic() + int(rest)
            elif word == "ssh" and rest in {"serve", "hold", "refuse"}:
                self.ssh = rest
            elif word == "reboot":
                self.rebooting = True

    def _run_scripts(self, paths: list[str]) -> None:
        """Run scripts one after the other, as cloud-init does."""
        if paths:
            in_turn = ["/bin/sh", "-c", 'for script; do "$script"; done', "cloud-init", *paths]
            self._run(paths if len(paths) == 1 else in_turn, self.plan["env"], cwd=self.plan["home"])

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                self._run(self.plan["sshd"], self.plan["sshd_env"], cwd="/", stdio=connection.fileno())

    def _run(self, argv: list[str], env: Mapping[str, str], *, cwd: str, stdio: int | None = None) -> None:
        """Start a program in a session of its own, its errors (and output, without `stdio`) in the host's log."""
        if os.fork() != 0:
            return
        try:
            os.setsid()
            for number in _NOT_INHERITED:
                signal.signal(number, signal.SIG_DFL)
            log = os.open(self.plan["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDWR) if stdio is None else stdio, 0)
            os.dup2(log if stdio is None else stdio, 1)
            os.dup2(log, 2)
            os.chdir(cwd)
            os.execve(argv[0], argv, env)  # noqa: S606
        except OSError as error:
            os.write(2, f"orch: cannot run {argv[0]}: {error}\n".encode())
        finally:
            os._exit(127)


def emit(number: object, what: str) -> None:
    """Tell the daemon something; nobody listens when it is dead."""
    try:
        os.write(1, f"{number} {what}\n".encode())
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise


def supervise(path: str) -> NoReturn:
    """Be the supervisor of the host that `path` (a host.json) describes."""
    number = os.path.basename(os.path.dirname(path))  # noqa: PTH119, PTH120
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            plan = json.load(file)
        Supervisor(plan).run()
    except BaseException as error:
        emit(number, f"failed {type(error).__name__}: {error}".replace("\n", " "))
    finally:
        os._exit(0)


def main() -> None:
    """Fork a supervisor for every path read, until the daemon is gone."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.umask(0o022)
    os.chdir("/")
    for line in sys.stdin.buffer:
        if os.fork() == 0:
            supervise(os.fsdecode(line.rstrip(b"\n")))


if __name__ == "__main__":
    main()
