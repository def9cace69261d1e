"""The sandbox as a whole: up, twice, beside another, as an ordinary user, and refused in one line."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import BadInput, NotFound, OrchError
from orchestrator.sandbox import control, image, reaper, tools
from tests.sandbox.hosts_world import World, command_lines, naming, needs_hosts, new_world, wait_for

pytestmark = needs_hosts

UP = "import pathlib, sys; from orchestrator.sandbox import control; print(control.up(pathlib.Path(sys.argv[1])))"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp"))
    yield folder
    control.down(folder)
    shutil.rmtree(folder)


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | more


def test_two_callers_at_once_start_one_sandbox(home: Path) -> None:
    starts = [
        subprocess.Popen([sys.executable, "-c", UP, str(home)], env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [start.communicate(timeout=120)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0]
    assert printed[0] == printed[1] == f"{control.settings(home)}\n"
    assert list(reaper.processes(home / "sandbox").values()).count(0) == 2  # the daemon and its spawner


def test_up_again_changes_nothing(world: World) -> None:
    daemon = world.daemon()
    said: list[str] = []
    assert control.up(world.home, on_progress=said.append) == world.settings
    assert world.daemon() == daemon
    assert said == []


def test_two_sandboxes_side_by_side_do_not_meet(world: World) -> None:
    with new_world() as other:
        mine, others = world.launch()[0], other.launch()[0]
        assert world.settings.endpoint_url != other.settings.endpoint_url
        assert (mine.address, world.settings.ssh_port) != (others.address, other.settings.ssh_port)
        assert {host["instance_id"] for host in control.status(other.home)["hosts"]} == {others.instance_id}
        with pytest.raises(NotFound):
            control.kill(other.home, mine.instance_id)
        other.on(others, "tmux new-session -d -s beside")
        assert world.ssh(mine, "tmux ls").returncode != 0
    assert world.on(mine, "echo alive") == "alive\n"
    world.terminate(mine)


def test_the_state_is_for_the_user_alone_and_everything_listens_on_loopback(world: World) -> None:
    assert stat.S_IMODE((world.folder / "state.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(world.folder.stat().st_mode) == 0o700
    world.launch()
    inodes = set()
    for pid in reaper.processes(world.folder):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    listening = [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in (line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and fields[9] in inodes
    ]
    assert len(listening) >= 3  # the endpoint, and sshd and IMDS of a host
    assert [address for address in listening if not address.split(":")[0].endswith("7F")] == []


def test_the_daemon_takes_nothing_of_the_callers_credentials(home: Path) -> None:
    real = {
        "AWS_ACCESS_KEY_ID": "AKIAREALREALREALREAL",
        "AWS_SECRET_ACCESS_KEY": "r",
        "AWS_PROFILE": "p",
        "WANDB_API_KEY": "w",
    }
    done = subprocess.run(
        [sys.executable, "-c", UP, str(home)], env=environment(**real), capture_output=True, text=True, check=True
    )
    assert "AKIAREAL" not in done.stdout
    daemon = control.status(home)["pid"]
    inherited = Path(f"/proc/{daemon}/environ").read_bytes()
    assert b"REAL" not in inherited
    assert b"WANDB" not in inherited
    assert Path(f"/proc/{daemon}/cwd").readlink() == Path("/")
    fields = Path(f"/proc/{daemon}/stat").read_text().rpartition(") ")[2].split()
    assert (int(fields[1]), int(fields[4])) != (os.getpid(), os.tcgetpgrp(0) if os.isatty(0) else -1)
    assert int(fields[4]) == 0  # no controlling terminal
    env = control.env(home)
    assert env["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert env["AWS_ACCESS_KEY_ID"] != real["AWS_ACCESS_KEY_ID"]
    assert env["AWS_DEFAULT_REGION"] == "us-east-1"


def test_down_leaves_no_process_and_no_file_and_may_be_repeated(home: Path) -> None:
    world = World(home, control.up(home, pending_seconds=0.05))
    node = world.launch()[0]
    world.on(node, "tmux new-session -d")
    assert naming(world.folder)
    control.down(home)
    assert not naming(world.folder)
    assert sorted(path.name for path in home.iterdir()) == ["key"]
    assert control.settings(home) is None
    assert control.status(home) == {"up": False, "folder": str(world.folder), "endpoint": None, "hosts": []}
    control.down(home)
    control.down(home / "never")
    with pytest.raises(NotFound, match="not up"):
        control.env(home)


def test_kill_and_fault_reach_the_cloud(world: World) -> None:
    node = world.launch()[0]
    control.kill(world.home, node.instance_id)
    wait_for("gone", lambda: world.state(node)[0] == "terminated")
    with pytest.raises(NotFound, match="i-none"):
        control.kill(world.home, "i-none")
    control.fault(world.home, "DescribeKeyPairs", "UnauthorizedOperation")
    assert [fault["code"] for fault in control.status(world.home)["faults"]] == ["UnauthorizedOperation"]
    control.fault(world.home, "DescribeKeyPairs", "UnauthorizedOperation", 0)
    assert control.status(world.home)["faults"] == []


def test_a_port_that_a_host_of_another_sandbox_has_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where its first host, on whose address this one begins too, is gone."""
    with socket.create_server(("127.16.0.77", 0)) as theirs:
        port = theirs.getsockname()[1]
        drawn = iter([port, 10_003, port, 10_004, port, 10_005])
        monkeypatch.setattr(secrets, "choice", lambda ports: next(drawn))
        assert control._free_ports() == (10_003, 10_004, 10_005)


def test_a_daemon_that_cannot_start_says_why_in_one_line_and_leaves_no_process(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(control, "_free_ports", lambda: (taken.getsockname()[1], 10_001, 10_002))
        with pytest.raises(OrchError, match=r"could not start.*in use") as caught:
            control.up(home)
    assert "\n" not in caught.value.message
    assert not reaper.processes(home / "sandbox")


def test_a_daemon_that_died_long_ago_is_not_taken_for_a_later_process_of_its_number(home: Path) -> None:
    folder = home / "sandbox"
    control.up(home)
    old = json.loads((folder / "state.json").read_text())
    os.kill(old["pid"], signal.SIGKILL)
    bystander = subprocess.Popen(["sleep", "1000"])
    (folder / "state.json").write_text(json.dumps(old | {"pid": bystander.pid}))
    assert control.settings(home) is None
    control.down(home)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.parametrize("name", ["a" * 80, "with space", "quote'", "semi;colon"])
def test_a_home_that_cannot_hold_hosts_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        control.up(Path("/tmp") / name)
    assert "\n" not in caught.value.message
    assert "ORCH_HOME" in caught.value.hint
    assert not (Path("/tmp") / name).exists()


def test_the_longest_home_that_is_allowed_has_room_for_sockets() -> None:
    longest = "/" + "x" * (image.SOCKET_LIMIT - len("/h/9999/tmp/pymp-12345678/listener-12345678") - 1)
    image.check_folder(Path(longest))
    for longer in ("/h/9999/t/tmux-4294967295/default", "/h/9999/tmp/pymp-12345678/listener-12345678"):
        assert len(longest + longer) <= 107
    with pytest.raises(BadInput):
        image.check_folder(Path(longest + "x"))


def test_missing_programs_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "SYSTEM_PATH", str(tmp_path))
    with pytest.raises(OrchError) as caught:
        tools.find({"PATH": str(tmp_path)})
    assert "sshd" in caught.value.message
    assert caught.value.hint == "apt-get install openssh-server tmux bash"
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(OrchError, match="needs Linux"):
        tools.find(dict(os.environ))


def test_unpacked_tools_come_first_with_their_libraries_and_halves(tmp_path: Path) -> None:
    for name in ("usr/sbin/sshd", "usr/bin/tmux", "usr/lib/openssh/sshd-session", "usr/lib/openssh/sftp-server"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o700)
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir()
    found = tools.find(os.environ | {"ORCH_TOOLS": str(tmp_path)})
    assert (found.sshd, found.tmux) == (str(tmp_path / "usr/sbin/sshd"), str(tmp_path / "usr/bin/tmux"))
    assert found.sftp_server == str(tmp_path / "usr/lib/openssh/sftp-server")
    assert found.libraries == str(tmp_path / "usr/lib/x86_64-linux-gnu")
    assert found.sshd_options == (f"SshdSessionPath {tmp_path}/usr/lib/openssh/sshd-session",)


def test_a_user_without_a_shell_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(pwd, "getpwuid", lambda number: pwd.struct_passwd([*entry[:6], "/usr/sbin/nologin"]))
    with pytest.raises(BadInput, match="login shell"):
        tools.check_user()


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests already run as an ordinary user")
def test_an_ordinary_user_can_have_all_of_it() -> None:
    """In a mount namespace of its own, where a user of its own exists and root's Python can be read."""
    home = Path(tempfile.mkdtemp(prefix="orch-", dir="/tmp"))
    user = 64_321
    closed = pwd.getpwuid(0).pw_dir
    os.chown(home, user, user)
    passwd = home / "passwd"
    passwd.write_text(f"{Path('/etc/passwd').read_text()}orchtest:x:{user}:{user}::{home}:/bin/bash\n")
    script = f"""
        set -e
        mount --make-rprivate /
        mount --bind {passwd} /etc/passwd
        case {sys.base_prefix} in {closed}/*)
            mkdir {home}/python
            mount --bind {sys.base_prefix} {home}/python
            mount -t tmpfs -o mode=755 none {closed}
            mkdir -p {sys.base_prefix}
            mount --bind {home}/python {sys.base_prefix} ;;
        esac
        exec setpriv --reuid={user} --regid={user} --clear-groups {sys.executable} -P -c \
            'import pathlib; from tests.sandbox.hosts_world import round_trip; round_trip(pathlib.Path("{home}/o"))'
    """
    try:
        probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
        if probe.returncode != 0 or not shutil.which("setpriv"):
            pytest.skip("root may not make a mount namespace here")
        if not all(folder.stat().st_mode & 0o005 == 0o005 for folder in Path(__file__).resolve().parents):
            pytest.skip("this checkout lies where other users cannot read it")
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", script],
            env=environment(HOME=str(home), PYTHONDONTWRITEBYTECODE="1"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert [words for _, words in command_lines() if str(home) in " ".join(words)] == []
    finally:
        control.down(home / "o")
        shutil.rmtree(home)
