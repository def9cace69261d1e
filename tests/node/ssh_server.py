"""A real sshd for a test: on loopback, at a free port, with keys of its own; ended by its process id."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")
MISSING = "" if SSHD and SSH and shutil.which("ssh-keygen") else "OpenSSH's client and server are not installed"
ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """One sshd; `host_keys` as it publishes them, `private_key` the only one it lets in."""

    folder: Path
    port: int
    host_keys: tuple[str, ...]
    private_key: str
    process: subprocess.Popen[bytes]

    @property
    def user(self) -> str:
        return getpass.getuser()

    def children(self) -> list[int]:
        """Every process below the sshd: those of the connections it holds."""
        parents: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found, queue = [], [self.process.pid]
        while queue:
            below = parents.get(queue.pop(), [])
            found += below
            queue += below
        return found

    def signal_children(self, number: signal.Signals) -> None:
        for pid in self.children():
            os.kill(pid, number)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def keygen(folder: Path, name: str, kind: str = "ed25519") -> tuple[str, str]:
    """Return a new key pair: private and public text."""
    file = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(file), "-C", "test@host"], check=True)
    return file.read_text(), file.with_suffix(".pub").read_text().strip()


@contextmanager
def running_sshd(kinds: tuple[str, ...] = ("ed25519",), port: int | None = None, delay: float = 0) -> Iterator[Server]:
    """Run an sshd with host keys of these kinds until the block ends; `delay` seconds late if asked."""
    assert SSHD is not None
    folder = Path(tempfile.mkdtemp(prefix="orch-ssh-", dir="/tmp"))
    publics = tuple(keygen(folder, f"host_{kind}", kind)[1] for kind in kinds)
    private, public = keygen(folder, "client")
    (folder / "authorized_keys").write_text(public + "\n")
    port = port or free_port()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd as root insists on its privilege separation folder
    lines = [
        f"ListenAddress {ADDRESS}",
        f"Port {port}",
        *(f"HostKey {folder}/host_{kind}" for kind in kinds),
        f"AuthorizedKeysFile {folder}/authorized_keys",
        # Not the caller's own start-up files, which may be slow, and may not like to be killed half way.
        f"SetEnv HOME={folder}",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "PidFile none",
        "MaxStartups 200",
    ]
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
    if delay:
        command = ["sh", "-c", f'sleep {delay}; exec "$@"', "sh", *command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = Server(folder, port, publics, private, process)
    try:
        if not delay:
            _await_port(server)
        yield server
    finally:
        for pid in [*server.children(), process.pid]:
            try:
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()
        shutil.rmtree(folder)


def _await_port(server: Server) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((ADDRESS, server.port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise AssertionError((server.folder / "log").read_text()) from None
            time.sleep(0.05)
        else:
            return
