from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from orchestrator.errors import BadInput, OrchError, Unreachable
from orchestrator.node import ssh
from orchestrator.node.ssh import Connection, HostKeyMismatch, Target, connect, connect_all, generate_key
from orchestrator.node.ssh_command import known_hosts_lines, parse_host_keys, ssh_argv
from tests.node.ssh_server import ADDRESS, MISSING, Server, free_port, keygen, running_sshd

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "OpenSSH is installed")
# Generous, since nothing here waits for it unless something is broken.
SOON = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_sshd(("ed25519", "rsa", "ecdsa")) as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server whose processes the test may stop."""
    with running_sshd() as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every connection's threads end with it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + SOON
    while left := [each for each in threading.enumerate() if each not in before]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def open_to(server: Server, deadline: float = SOON) -> Connection:
    return connect(ADDRESS, server.port, server.user, server.private_key, server.host_keys, deadline)


def target(server: Server, deadline: float = SOON) -> Target:
    return Target(ADDRESS, server.port, server.user, server.private_key, server.host_keys, deadline)


def test_a_command_gives_its_output_its_errors_and_its_code(server: Server) -> None:
    with open_to(server) as connection:
        result = connection.run("echo out; echo err >&2; exit 3")
        assert (result.code, result.out, result.err) == (3, "out\n", "err\n")
        assert connection.run("true").code == 0


def test_a_script_on_standard_input_is_run_to_its_end(server: Server) -> None:
    script = b"read -r x <<<'a b'\necho \"[$x]\"\ncat\nnot a command, but input\n"
    with open_to(server) as connection:
        assert connection.run("bash -s", script).out == "[a b]\nnot a command, but input\n"


def test_a_large_input_arrives_whole(server: Server) -> None:
    with open_to(server) as connection:
        assert connection.run("wc -c", os.urandom(5_000_000), SOON).out.strip() == "5000000"


def test_of_endless_output_the_end_is_kept(server: Server) -> None:
    with open_to(server) as connection:
        result = connection.run("seq 1 800000; echo said >&2", timeout=SOON)
    everything = "".join(f"{number}\n" for number in range(1, 800_001))
    assert result.out == everything[-ssh.OUTPUT_LIMIT :]
    assert result.err == "said\n"


def test_output_that_is_no_text_does_no_harm(server: Server) -> None:
    with open_to(server) as connection:
        assert connection.run(r"printf 'a\377b'").out == "a\ufffdb"


def test_a_command_that_a_signal_ended_has_no_code_of_its_own(server: Server) -> None:
    with open_to(server) as connection:
        assert connection.run("kill -9 $$").code == -1
        assert connection.run("true").code == 0


def test_lines_come_as_they_are_written(server: Server) -> None:
    seen: list[str] = []
    with open_to(server) as connection:
        gate = server.folder / "gate"
        script = (
            f"echo first; while [ ! -e {gate} ]; do sleep 0.05; done; printf 'two\\r\\nthr'; printf 'ee' >&2; exit 4"
        )

        def on_line(line: str) -> None:
            seen.append(line)
            gate.touch()  # the command goes on only when its first line has been seen

        assert connection.stream(script, on_line, SOON) == 4
    assert seen == ["first", "two", "three"]


def test_a_line_without_end_comes_in_pieces(server: Server) -> None:
    seen: list[str] = []
    with open_to(server) as connection:
        assert connection.stream("head -c 300000 /dev/zero | tr '\\0' x", seen.append, SOON) == 0
    assert "".join(seen) == "x" * 300_000
    assert max(map(len, seen)) <= ssh.LINE_LIMIT + ssh.CHUNK


def test_a_command_that_does_not_end_is_given_up_at_its_deadline(server: Server) -> None:
    connection = open_to(server)
    with pytest.raises(Unreachable, match=r"did not end within 0\.5 s"):
        connection.run("sleep 600", timeout=0.5)
    with pytest.raises(Unreachable):
        connection.run("true")


@pytest.mark.parametrize("stdin", [b"", b"x" * 20_000_000])
def test_a_node_that_falls_silent_is_given_up_at_the_deadline(own_server: Server, stdin: bytes) -> None:
    connection = open_to(own_server)
    assert connection.run("true").code == 0
    own_server.signal_children(signal.SIGSTOP)
    with pytest.raises(Unreachable, match="did not end"):
        connection.run("cat >/dev/null", stdin, timeout=1.0)


class Mute(paramiko.ServerInterface):
    """A server that lets everybody in, opens sessions, and never answers what is asked of them."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.outlasted = True

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.outlasted = self.released.wait(SOON)
        return False


def test_a_request_that_is_never_answered_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    private, public = keygen(tmp_path, "host", "ed25519")
    mute = Mute()
    with socket.create_server((ADDRESS, 0)) as listening:
        port = listening.getsockname()[1]
        transports: list[paramiko.Transport] = []

        def serve() -> None:
            transport = paramiko.Transport(listening.accept()[0])
            transport.add_server_key(paramiko.Ed25519Key(file_obj=io.StringIO(private)))
            transport.start_server(server=mute)
            transports.append(transport)

        thread = threading.Thread(target=serve)
        thread.start()
        connection = connect(ADDRESS, port, "anybody", generate_key()[0], [public], SOON)
        thread.join()
        try:
            with pytest.raises(Unreachable, match=r"did not end within 0\.5 s"):
                connection.run("true", timeout=0.5)
            assert mute.outlasted, "the client waited for the answer"
        finally:
            mute.released.set()
            transports[0].close()


def test_a_node_that_dies_in_the_middle_is_noticed_before_the_deadline(own_server: Server) -> None:
    connection = open_to(own_server)
    killer = threading.Timer(0.3, own_server.signal_children, [signal.SIGKILL])
    killer.start()
    with pytest.raises(Unreachable, match="connection broke"):
        connection.run("sleep 600", timeout=600)
    killer.join()


def test_another_host_key_is_refused_loudly_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    other = keygen(tmp_path, "other")[1]
    with pytest.raises(HostKeyMismatch, match="DOES NOT HOLD") as caught:
        connect(ADDRESS, server.port, server.user, server.private_key, [other], SOON)
    assert caught.value.hint
    assert not isinstance(caught.value, Unreachable)


def test_a_server_without_a_key_of_the_pinned_type_is_refused_too(own_server: Server, tmp_path: Path) -> None:
    other = keygen(tmp_path, "other", "rsa")[1]
    with pytest.raises(HostKeyMismatch, match="DOES NOT HOLD"):
        # The deadline is far off: no timer of paramiko's may be left waiting for it (`nothing_left` looks).
        connect(ADDRESS, own_server.port, own_server.user, own_server.private_key, [other], 10 * SOON)


def test_without_a_pinned_key_there_is_no_connection(server: Server) -> None:
    with pytest.raises(HostKeyMismatch, match="has published no host key"):
        connect(ADDRESS, server.port, server.user, server.private_key, ["", "ssh-ed25519", "# x y"], SOON)


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256"])
def test_each_type_of_host_key_can_be_the_pinned_one(server: Server, kind: str) -> None:
    (line,) = [line for line in server.host_keys if line.startswith(kind)]
    with connect(ADDRESS, server.port, server.user, server.private_key, [line], SOON) as connection:
        assert connection.run("true").code == 0


def test_a_key_that_is_not_let_in_is_not_tried_for_long(server: Server) -> None:
    with pytest.raises(Unreachable, match="does not take the run's key"):
        connect(ADDRESS, server.port, server.user, generate_key()[0], server.host_keys, 600)


def test_no_other_key_of_the_caller_is_offered(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    home = server.folder / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text(server.private_key)
    (home / ".ssh" / "id_ed25519").chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(Unreachable, match="does not take"):
        connect(ADDRESS, server.port, server.user, generate_key()[0], server.host_keys, SOON)


def test_a_generated_key_is_one_that_openssh_takes(server: Server) -> None:
    private, public = generate_key("orch-run")
    assert public.startswith("ssh-ed25519 ")
    assert public.endswith(" orch-run")
    with (server.folder / "authorized_keys").open("a") as file:
        file.write(public + "\n")
    with connect(ADDRESS, server.port, server.user, private, server.host_keys, SOON) as connection:
        assert connection.run("echo in").out == "in\n"


def test_a_node_whose_sshd_comes_late_is_waited_for() -> None:
    with running_sshd(delay=1.0) as server, open_to(server) as connection:
        assert connection.run("echo late").out == "late\n"


def test_where_nobody_listens_it_says_so_at_the_deadline(server: Server) -> None:
    with pytest.raises(Unreachable, match="no SSH within 1 s"):
        connect(ADDRESS, free_port(), server.user, server.private_key, server.host_keys, 1.0)


def test_what_accepts_but_never_answers_is_given_up(server: Server) -> None:
    with socket.create_server((ADDRESS, 0)) as silent, pytest.raises(Unreachable, match="no SSH within 1 s"):
        connect(ADDRESS, silent.getsockname()[1], server.user, server.private_key, server.host_keys, 1.0)


def test_what_is_no_ssh_at_all_is_given_up(server: Server) -> None:
    with socket.create_server((ADDRESS, 0)) as other:
        thread = threading.Thread(target=answer_nonsense, args=(other,))
        thread.start()
        try:
            with pytest.raises(Unreachable, match="no SSH within 2 s"):
                connect(ADDRESS, other.getsockname()[1], server.user, server.private_key, server.host_keys, 2.0)
        finally:
            other.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_many_nodes_are_reached_at_once_and_each_failure_is_its_own(server: Server) -> None:
    good = target(server)
    bad = replace(good, port=free_port(), deadline=1.0)
    wrong = replace(good, host_keys=(server.host_keys[0][:-20] + "AAAA",))
    found = list(connect_all([good, bad, wrong, good, good], max_workers=4))
    connections = [item for _, item in found if isinstance(item, Connection)]
    failures = {where: item for where, item in found if isinstance(item, OrchError)}
    assert [item.run("echo here").out for item in connections] == ["here\n"] * 3
    for each in connections:
        each.close()
    assert {type(failures[bad]), type(failures[wrong])} == {Unreachable, HostKeyMismatch}
    assert list(connect_all([])) == []


def test_paramiko_says_nothing_on_the_terminal() -> None:
    code = (
        "import sys; from orchestrator.node import ssh\n"
        "try: ssh.connect('127.0.0.1', int(sys.argv[1]), 'u', ssh.generate_key()[0], ['ssh-ed25519 AAAA'], 0.5)\n"
        "except ssh.Unreachable: sys.exit(42)"
    )
    with socket.create_server((ADDRESS, 0)) as other:
        thread = threading.Thread(target=answer_nonsense, args=(other,))
        thread.start()
        try:
            port = str(other.getsockname()[1])
            done = subprocess.run([sys.executable, "-c", code, port], capture_output=True, text=True, check=False)
        finally:
            other.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert (done.returncode, done.stdout, done.stderr) == (42, "", "")


def answer_nonsense(other: socket.socket) -> None:
    """Answer every connection as something that is no SSH server, until the socket is shut down."""
    while True:
        try:
            connection, _ = other.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def argv(server: Server, tmp_path: Path, *command: str, keys: tuple[str, ...] | None = None) -> list[str]:
    folder = tmp_path / "a folder, 100%"
    folder.mkdir(exist_ok=True)
    known, key = folder / "known hosts", folder / "id"
    known.write_text(known_hosts_lines(ADDRESS, server.port, server.host_keys if keys is None else keys))
    key.write_text(server.private_key)
    key.chmod(0o600)
    return ssh_argv(server.user, ADDRESS, server.port, key, known, command)


def test_openssh_reaches_the_node_by_the_command_line_and_passes_arguments_on(server: Server, tmp_path: Path) -> None:
    words = ["printf", "%s\n", "$(id)", "two words", "quote'd", "-oProxyCommand=x", ""]
    done = subprocess.run(argv(server, tmp_path, *words), capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == [*words[2:], ""]


def test_one_word_is_a_line_for_the_node_s_shell(server: Server, tmp_path: Path) -> None:
    done = subprocess.run(argv(server, tmp_path, "echo $((1+2)); exit 5"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, "3\n")


def test_openssh_refuses_another_host_key(server: Server, tmp_path: Path) -> None:
    other = keygen(tmp_path, "other")[1]
    done = subprocess.run(argv(server, tmp_path, "true", keys=(other,)), capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert "verification failed" in done.stderr.lower()


def test_the_command_line_forwards_nothing_and_asks_nothing() -> None:
    found = ssh_argv("ubuntu", "10.0.0.5", 22, Path("/k"), Path("/h"), ["uptime"], tty=True)
    assert found[:3] == ["ssh", "-F", "/dev/null"]
    assert found[-4:] == ["-t", "--", "ubuntu@10.0.0.5", "uptime"]
    options = dict(word.split("=", 1) for word in found if "=" in word)
    assert options["StrictHostKeyChecking"] == "yes"
    assert options["UserKnownHostsFile"] == '"/h"'
    assert options["IdentitiesOnly"] == "yes"
    assert options["IdentityAgent"] == "none"
    assert options["ForwardAgent"] == "no"
    assert options["ControlMaster"] == "no"
    assert options["BatchMode"] == "yes"


@pytest.mark.parametrize(
    ("user", "address"),
    [("-oProxyCommand=x", "10.0.0.5"), ("ubuntu", "-oProxyCommand=x"), ("a b", "10.0.0.5"), ("u", "h;id"), ("", "h")],
)
def test_what_could_be_an_option_is_refused(user: str, address: str) -> None:
    with pytest.raises(BadInput):
        ssh_argv(user, address, 22, Path("/k"), Path("/h"))


def test_known_hosts_admit_the_published_keys_and_nothing_that_was_slipped_in() -> None:
    lines = [
        "ssh-rsa AAAAB3== root@host",
        "ssh-ed25519 AAAAC3 root@host",
        "@cert-authority * ssh-rsa AAAA",
        "* ssh-rsa AAA",
    ]
    assert known_hosts_lines("10.0.0.5", 22, lines) == "10.0.0.5 ssh-ed25519 AAAAC3\n10.0.0.5 ssh-rsa AAAAB3==\n"
    assert known_hosts_lines("10.0.0.5", 2222, lines[1:2]) == "[10.0.0.5]:2222 ssh-ed25519 AAAAC3\n"
    assert parse_host_keys(["ssh-ed25519 AAAA\nssh-rsa BBBB"]) == [("ssh-ed25519", "AAAA")]
