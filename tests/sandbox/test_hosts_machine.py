"""A host as its user finds it: environment, SSH sessions, sftp, user-data, Python, tmux."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import select
import shlex
import subprocess
import time
import zipfile
from collections.abc import Iterator
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import pytest

from orchestrator.sandbox.user_data import Scripts, scripts_of
from tests.sandbox.hosts_world import Node, World, needs_hosts, new_world, wait_for

pytestmark = needs_hosts

USER_DATA = """#!/bin/bash
env -0 > $HOME/user-data.env.new && mv $HOME/user-data.env.new $HOME/user-data.env
grep SigIgn /proc/self/status > $HOME/signals.new && mv $HOME/signals.new $HOME/signals
echo booted by $0 in $PWD
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


@pytest.fixture(scope="module")
def node(world: World) -> Node:
    return world.launch(2, USER_DATA)[0]


def environment(text: bytes) -> dict[str, str]:
    return dict(item.split("=", 1) for item in text.decode().split("\0") if item)


def test_user_data_ssh_and_sftp_find_the_same_environment(world: World, node: Node) -> None:
    home = world.host_folder(node) / "home"
    wait_for("user-data ran", (home / "user-data.env").exists)
    at_boot = environment((home / "user-data.env").read_bytes())
    in_ssh = environment(world.on(node, "env -0").encode())
    sftp = subprocess.Popen(
        world.ssh_command(node, "-b", "-", program="sftp"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert sftp.stdin is not None
    assert sftp.stdout is not None
    sftp.stdin.write("pwd\n")
    sftp.stdin.flush()
    while "Remote working directory" not in (line := sftp.stdout.readline()):
        assert line, "sftp ended"
    server = next(
        pid
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))  # noqa: PTH208
        if readable(pid, "cmdline").split(b"\0")[0].endswith(b"sftp-server")
        and str(home).encode() in readable(pid, "environ")
    )
    in_sftp = environment(readable(server, "environ"))
    sftp.communicate("bye\n", timeout=20)
    assert line.strip() == f"Remote working directory: {home}"
    for found in (in_ssh, in_sftp):
        assert {name: found.get(name) for name in at_boot if name not in {"_", "SHLVL"}} == {
            name: value for name, value in at_boot.items() if name not in {"_", "SHLVL"}
        }
    assert at_boot["HOME"] == at_boot["PWD"] == str(home)
    assert at_boot["AWS_EC2_METADATA_SERVICE_ENDPOINT"].startswith(f"http://{node.address}:")
    assert at_boot["AWS_ENDPOINT_URL"] == world.settings.endpoint_url
    assert at_boot["GLOO_SOCKET_IFNAME"] == "lo"
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "PYTHONPATH"} & at_boot.keys()


def readable(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def test_what_user_data_prints_is_in_the_hosts_log(world: World, node: Node) -> None:
    home = world.host_folder(node) / "home"
    wait_for("the log", lambda: "booted by" in world.on(node, "cat cloud-init-output.log"))
    assert f"in {home}\n" in world.on(node, "cat cloud-init-output.log")


def test_user_data_that_is_no_script_is_said_to_be_none(world: World) -> None:
    node = world.launch(user_data="#cloud-config\nruncmd: [touch here]\n")[0]
    assert "no script" in world.on(node, "cat cloud-init-output.log")


def test_a_multipart_gives_scripts_by_when_they_run_and_says_what_is_passed_over() -> None:
    parts = MIMEMultipart()
    for kind, text in (
        ("x-shellscript", "#!/bin/sh\na\n"),
        ("cloud-config", "a: b"),
        ("x-shellscript-per-boot", "#!/bin/sh\nb\n"),
    ):
        parts.attach(MIMEText(text, kind, "us-ascii"))
    found = scripts_of(parts.as_bytes())
    assert (found.first_boot, found.every_boot) == ((b"#!/bin/sh\na\n",), (b"#!/bin/sh\nb\n",))
    assert found.passed_over == ("a part of type text/cloud-config",)
    assert scripts_of(b"") == Scripts()


@pytest.mark.parametrize(
    "words",
    [
        ["a b", "c'd", 'e"f', "$HOME", "`id`", "\\", "*", ""],
        ["new\nline", "tab\there", "ünïcödé", "-n", "--", "!x", "a;b|c&d>e"],
    ],
)
def test_words_come_through_the_forced_command_as_they_are(world: World, node: Node, words: list[str]) -> None:
    script = "import sys, json; print(json.dumps(sys.argv[1:]))"
    printed = world.on(node, shlex.join(["python3", "-c", script, *words]))
    assert json.loads(printed) == words


def test_input_output_and_exit_codes_pass_unchanged(world: World, node: Node) -> None:
    every_byte = bytes(range(256)) * 300
    done = subprocess.run(
        [*world.ssh_command(node), "cat; echo oops >&2; exit 37"],
        input=every_byte,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (every_byte, b"oops\n", 37)
    piped = world.ssh(node, "bash -s", input="cd /\npwd\nexit 5\n")
    assert (piped.stdout, piped.returncode) == ("/\n", 5)
    assert world.ssh(node, "kill -TERM $$").returncode != 0


def test_no_signal_is_ignored_in_what_a_host_runs(world: World, node: Node) -> None:
    home = world.host_folder(node) / "home"
    wait_for("user-data ran", (home / "signals").exists)
    assert int((home / "signals").read_text().split()[1], 16) == 0
    assert int(world.on(node, "grep SigIgn /proc/self/status").split()[1], 16) == 0


def test_every_way_in_begins_in_the_hosts_own_home(world: World, node: Node) -> None:
    home = world.host_folder(node) / "home"
    assert world.on(node, "pwd") == f"{home}\n"
    assert world.on(node, "cd; pwd; echo ~") == f"{home}\n{home}\n"
    assert "OLDPWD" not in world.on(node, "env")
    assert "SSH_ORIGINAL_COMMAND" not in world.on(node, "env")


def test_an_interactive_login_shell_has_the_hosts_programs_first(world: World, node: Node) -> None:
    host = world.host_folder(node)
    pid, terminal = pty.fork()
    if pid == 0:
        command = world.ssh_command(node, "-tt")
        os.execvp(command[0], command)  # noqa: S606
    said = b""
    os.write(terminal, b"command -v shutdown; tty; echo en''d\n")
    end = time.monotonic() + 60
    while b"\nend" not in said and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            said += os.read(terminal, 65_536)
    os.write(terminal, b"exit\n")
    os.waitpid(pid, 0)
    os.close(terminal)
    assert f"{host}/bin/shutdown\r\n".encode() in said
    assert b"/dev/" in said
    assert b"ip-127-16-" in said


def test_shutdown_is_the_hosts_own_in_every_kind_of_shell(world: World, node: Node) -> None:
    wanted = f"{world.host_folder(node)}/bin/shutdown\n"
    for shell in ("bash -c", "bash -lc", "sh -c", "sh -lc", "bash -ic", "sudo bash -c", "sudo -i bash -c"):
        done = world.ssh(node, f"{shell} 'command -v shutdown'")
        assert done.stdout == wanted, shell


def test_tmux_windows_are_the_hosts_own(world: World, node: Node) -> None:
    host = world.host_folder(node)
    other = world.launch()[0]
    world.on(node, "tmux new-session -d -s own && tmux send-keys -t own 'command -v shutdown > seen' Enter")
    wait_for("the window's shell", lambda: world.on(node, "cat seen || true") == f"{host}/bin/shutdown\n")
    assert world.on(node, "tmux ls").startswith("own:")
    assert world.ssh(other, "tmux ls").returncode != 0
    assert (host / "t" / f"tmux-{os.geteuid()}" / "default").is_socket()


def test_only_the_key_of_the_instance_opens_a_host(world: World, node: Node, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    command = [str(tmp_path / "other") if word == str(world.key) else word for word in world.ssh_command(node)]
    done = subprocess.run([*command, "true"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 255
    assert "Permission denied" in done.stderr


def test_sshd_shows_the_key_that_lies_in_the_hosts_key_folder(world: World, node: Node, tmp_path: Path) -> None:
    published = world.on(node, "cat $SSH_HOST_KEY_DIR/ssh_host_*_key.pub")
    known = tmp_path / "known_hosts"
    known.write_text(f"[{node.address}]:{world.settings.ssh_port} {published}")
    strict = {
        "StrictHostKeyChecking=no": "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/dev/null": f"UserKnownHostsFile={known}",
    }
    command = [strict.get(word, word) for word in world.ssh_command(node)]
    assert subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, check=False).returncode == 0


def test_a_package_installed_on_a_host_stays_there_and_the_images_are_seen(
    world: World, node: Node, tmp_path: Path
) -> None:
    wheel = tmp_path / "lonely-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("lonely.py", "WHERE = __file__\n")
        archive.writestr("lonely-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lonely\nVersion: 1.0\n")
        archive.writestr("lonely-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("lonely-1.0.dist-info/RECORD", "lonely.py,,\n")
    world.on(node, f"python3 -m pip install -q --no-index --no-deps --disable-pip-version-check {wheel}")
    host = world.host_folder(node)
    assert world.on(node, "python3 -c 'import lonely; print(lonely.WHERE)'").startswith(f"{host}/py/lib/")
    assert world.on(node, "python3 -c 'import boto3, sys; print(sys.prefix)'") == f"{host}/py\n"
    assert importlib.util.find_spec("lonely") is None


def test_a_host_has_a_name_and_no_gpu_and_mounts_nothing(world: World, node: Node) -> None:
    name = "ip-" + node.address.replace(".", "-")
    assert world.on(node, "hostname; hostname -I") == f"{name}\n{node.address}\n"
    assert world.ssh(node, "nvidia-smi -L").returncode != 0
    before = Path("/proc/mounts").read_text()
    world.on(node, "mkdir -p data && mount -t tmpfs -o size=90% orch-data data && touch data/x")
    assert Path("/proc/mounts").read_text() == before
    assert (world.host_folder(node) / "home/data/x").exists()
