"""SSH to the nodes by paramiko: only pinned host keys, one key, and a deadline on every wait.

paramiko is used here and nowhere else. Nothing of the caller's agent, `~/.ssh` or known_hosts is read. Decides nothing.
"""

from __future__ import annotations

import base64
import codecs
import io
import logging
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.errors import OrchError, Unreachable
from orchestrator.node.ssh_command import parse_host_keys

# paramiko logs what it also raises; without a handler of its own that would end on the terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

KEEPALIVE_SECONDS = 15
OUTPUT_LIMIT = 2**20
LINE_LIMIT = 2**16
CHUNK = 2**15
RETRY_SECONDS = 0.3
WORKERS = 32
# What costs least on both ends; every OpenSSH of the last ten years has them.
KEX = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256")
CIPHERS = ("aes128-gcm@openssh.com", "aes128-ctr", "aes256-ctr")


class HostKeyMismatch(OrchError):
    """Something answers at a node's address that does not hold the key the node published. Nothing was sent to it."""


class KeyRefused(Unreachable):
    """A node answers with its own host key and does not let this key in."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended and the last `OUTPUT_LIMIT` bytes of what it wrote, decoded as UTF-8 as well as may be."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Target:
    """A node to connect to; `host_keys` as in `ssh_host_*_key.pub`, `private_key` in OpenSSH's format."""

    address: str
    port: int
    user: str
    private_key: str
    host_keys: tuple[str, ...]
    deadline: float

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.address}:{self.port}"


def generate_key(comment: str = "orch") -> tuple[str, str]:
    """Return a new ed25519 key: the private one in OpenSSH's format, the public one as a line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"


def public_half(private_key: str) -> str:
    """Return the public line of a private key in OpenSSH's format. Raises ValueError when it is not one."""
    key = serialization.load_ssh_private_key(private_key.encode(), None)
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


class Connection:
    """An open connection to one node; for one thread at a time. A wait that passes its deadline closes it."""

    def __init__(self, name: str, transport: paramiko.Transport) -> None:
        self._name = name
        self._transport = transport

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what still runs on it on the node may go on."""
        self._transport.close()

    def run(self, command: str, stdin: bytes = b"", timeout: float = 60.0) -> Result:
        """Run a line of the node's shell to its end and return what it said.

        Raises Unreachable when it has not ended within `timeout` seconds or the connection broke.
        """
        out, err = bytearray(), bytearray()
        code = self._execute(command, stdin, timeout, lambda data: _keep(out, data), lambda data: _keep(err, data))
        return Result(code, _text(out), _text(err))

    def stream(self, command: str, on_line: Callable[[str], None], timeout: float) -> int:
        """Run a line of the node's shell, hand on each line it writes as it comes, and return its exit code.

        Standard output and error come together; lines longer than `LINE_LIMIT` come in pieces. Raises as `run` does.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""

        def take(data: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + decoder.decode(data)).split("\n")
            if len(rest) > LINE_LIMIT:
                lines, rest = [*lines, rest], ""
            for line in lines:
                on_line(line.removesuffix("\r"))

        code = self._execute(command, b"", timeout, take, take)
        if rest:
            on_line(rest)
        return code

    def _execute(
        self,
        command: str,
        stdin: bytes,
        timeout: float,
        on_out: Callable[[bytes], None],
        on_err: Callable[[bytes], None],
    ) -> int:
        """Run `command` and return its exit code (-1: ended by a signal)."""
        deadline = time.monotonic() + timeout
        with self._closed_at(deadline):
            try:
                channel = self._transport.open_session(timeout=timeout)
                channel.exec_command(command)
                if stdin:
                    channel.sendall(stdin)
                channel.shutdown_write()
                _pump(channel, deadline, on_out, on_err)
                channel.status_event.wait(max(0.0, deadline - time.monotonic()))
                code = channel.recv_exit_status() if channel.exit_status_ready() else None
                channel.close()
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise self._lost(deadline, timeout, _reason(error)) from error
        if code is None or (code == -1 and not self._transport.is_active()):
            raise self._lost(deadline, timeout, "closed by the node")
        return code

    def _lost(self, deadline: float, timeout: float, reason: str) -> Unreachable:
        self.close()
        if time.monotonic() >= deadline:
            return Unreachable(f"{self._name}: a command did not end within {timeout:g} s", "`orch ssh` shows why")
        return Unreachable(f"{self._name}: the connection broke: {reason}", "`orch status` shows whether it lives")

    @contextmanager
    def _closed_at(self, deadline: float) -> Iterator[None]:
        """Close the connection at `deadline`: paramiko waits without end for replies to requests and for the socket."""
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._transport.close)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def connect(  # noqa: PLR0917 - in the order of the command line
    address: str, port: int, user: str, private_key: str, host_keys: Sequence[str], deadline: float
) -> Connection:
    """Return a connection to a node, trying for `deadline` seconds while nothing answers there yet.

    Raises HostKeyMismatch when what answers does not hold one of `host_keys`, and Unreachable (KeyRefused
    when it does not take the key).
    """
    return _connect(Target(address, port, user, private_key, tuple(host_keys), deadline))


def connect_all(
    targets: Sequence[Target], max_workers: int = WORKERS
) -> Iterator[tuple[Target, Connection | OrchError]]:
    """Connect to many nodes at once and yield each with its connection, or why there is none, as they complete."""

    def one(target: Target) -> Connection | OrchError:
        try:
            return _connect(target)
        except OrchError as error:
            return error

    with ThreadPoolExecutor(max(1, min(max_workers, len(targets))), thread_name_prefix="ssh") as pool:
        pending = {pool.submit(one, target): target for target in targets}
        for future in as_completed(pending):
            yield pending[future], future.result()


def _connect(target: Target) -> Connection:
    until = time.monotonic() + target.deadline
    if not parse_host_keys(target.host_keys):
        raise HostKeyMismatch(f"{target.name} has published no host key", "wait until the node has booted")
    while True:
        try:
            return _connect_once(target, until)
        except paramiko.AuthenticationException as error:
            raise KeyRefused(
                f"{target.name} does not take the run's key for {target.user}", "check ssh_user"
            ) from error
        except paramiko.ssh_exception.IncompatiblePeer as error:
            raise Unreachable(
                f"{target.name}: {_reason(error)}", "the image's sshd needs curve25519 and AES"
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            pause = RETRY_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
            if time.monotonic() + pause >= until:
                raise Unreachable(
                    f"{target.name}: no SSH within {target.deadline:g} s: {_reason(error)}",
                    "check the security group and that the node is running",
                ) from error
        time.sleep(pause)


def _connect_once(target: Target, until: float) -> Connection:
    pinned = parse_host_keys(target.host_keys)
    sock = socket.create_connection((target.address, target.port), timeout=_left(until))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(sock)
    try:
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = _left(until)
        options = transport.get_security_options()
        options.kex, options.ciphers = KEX, CIPHERS
        options.key_types = _algorithms([kind for kind, _ in pinned])
        _negotiate(transport, target.name, until)
        offered = transport.get_remote_server_key()
        if (offered.get_name(), base64.b64encode(offered.asbytes()).decode()) not in pinned:
            raise _mismatch(target.name)
        done = threading.Event()
        transport.auth_publickey(target.user, _load(target.private_key), done)
        if not done.wait(_left(until)):
            raise TimeoutError("no answer to authentication")
        if not transport.is_authenticated():
            raise transport.get_exception() or paramiko.AuthenticationException("refused")
        transport.set_keepalive(KEEPALIVE_SECONDS)
    except BaseException:
        transport.packetizer.complete_handshake()  # ends its timer, whose thread would outlive the failure
        transport.close()
        sock.close()
        raise
    return Connection(target.name, transport)


def _negotiate(transport: paramiko.Transport, name: str, until: float) -> None:
    done = threading.Event()
    transport.start_client(done)
    if not done.wait(_left(until)):
        raise TimeoutError("no answer to key exchange")
    if not transport.is_active():
        error = transport.get_exception() or paramiko.SSHException("closed before key exchange")
        # The server has no host key of a pinned type at all: it is not the node that published them.
        raise _mismatch(name) if "no acceptable host key" in str(error) else error


def _mismatch(name: str) -> HostKeyMismatch:
    return HostKeyMismatch(
        f"WHAT ANSWERS AT {name} DOES NOT HOLD THE NODE'S HOST KEY; nothing was sent to it",
        "somebody may be listening in: end the run with `orch stop`, then look at the node in the EC2 console",
    )


def _algorithms(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the negotiable names for pinned types: an RSA key signs by newer names than its own."""
    names: list[str] = []
    for kind in kinds:
        names += ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]
    return tuple(dict.fromkeys(names))


@lru_cache(maxsize=8)
def _load(private_key: str) -> paramiko.Ed25519Key:
    return paramiko.Ed25519Key(file_obj=io.StringIO(private_key))


def _pump(
    channel: paramiko.Channel, deadline: float, on_out: Callable[[bytes], None], on_err: Callable[[bytes], None]
) -> None:
    """Hand on what arrives until the far end has said its last; returns early when the deadline closed the channel."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    while True:
        ended = channel.eof_received or channel.closed
        while channel.recv_ready():
            on_out(channel.recv(CHUNK))
        while channel.recv_stderr_ready():
            on_err(channel.recv_stderr(CHUNK))
        if ended or time.monotonic() >= deadline:
            return
        poll.poll(max(1.0, 1000 * (deadline - time.monotonic())))


def _keep(tail: bytearray, data: bytes) -> None:
    tail += data
    if len(tail) > 2 * OUTPUT_LIMIT:
        del tail[:-OUTPUT_LIMIT]


def _text(tail: bytearray) -> str:
    return bytes(tail[-OUTPUT_LIMIT:]).decode(errors="replace")


def _left(until: float) -> float:
    return max(0.05, until - time.monotonic())


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
