"""The programs that a host has in place of the system's, each run by itself."""

from __future__ import annotations

import os
import subprocess
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.sandbox import shims


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name, text in {
        "power.sh": shims.POWER,
        "disk.sh": shims.DISK,
        **shims.SHARED,
        "session": shims.SESSION,
    }.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o700)
    for name in shims.POWER_NAMES:
        (tmp_path / "bin" / name).symlink_to("power.sh")
    for name in shims.DISK_NAMES:
        (tmp_path / "bin" / name).symlink_to("disk.sh")
    os.mkfifo(tmp_path / "power")
    return tmp_path


def run(host: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{host}/bin:/usr/bin:/bin", "HOME": str(host), "SHELL": "/bin/sh"} | env
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=False)


def told(host: Path, *words: str) -> str:
    """Return what a shutdown command tells the supervisor."""
    heard: list[str] = []
    listener = threading.Thread(target=lambda: heard.append((host / "power").read_text()), daemon=True)
    listener.start()
    done = run(host, *words)
    assert done.returncode == 0, done.stderr
    listener.join(20)
    return heard[0]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("shutdown now", "in 0\n"),
        ("shutdown -P now", "in 0\n"),
        ("shutdown -P +5", "in 300\n"),
        ("shutdown -h +0", "in 0\n"),
        ("shutdown 7", "in 420\n"),
        ("shutdown", "in 60\n"),
        ("shutdown +2 going down", "in 120\n"),
        ("shutdown -c", "cancel\n"),
        ("poweroff", "in 0\n"),
        ("halt -p", "in 0\n"),
        ("sudo shutdown -P +1", "in 60\n"),
        ("env -i {bin}/shutdown -P +1", "in 60\n"),
        ("shutdown -P", "in 60\n"),
    ],
)
def test_shutdown_tells_the_supervisor_when(host: Path, command: str, text: str) -> None:
    assert told(host, *command.format(bin=host / "bin").split()) == text


def test_shutdown_takes_a_time_of_day(host: Path) -> None:
    at = datetime.now().astimezone() + timedelta(hours=2)
    seconds = int(told(host, "shutdown", f"{at:%H:%M}").split()[1])
    assert 7200 - 61 <= seconds <= 7200


@pytest.mark.parametrize("time", ["soon", "+", "+x", "1:2:3", "+5m"])
def test_a_time_that_is_none_is_refused(host: Path, time: str) -> None:
    done = run(host, "shutdown", time)
    assert done.returncode == 1
    assert "Failed to parse time" in done.stderr


def test_nothing_reboots(host: Path) -> None:
    for command in ("reboot", "shutdown -r now"):
        assert run(host, *command.split()).returncode == 1


def test_sudo_runs_the_command_as_it_is(host: Path) -> None:
    printed = run(
        host, "sudo", "-n", "-u", "ubuntu", "-H", "A=b c", "--", "sh", "-c", 'echo "$A" "$1"', "-", "x  y"
    ).stdout
    assert printed == "b c x  y\n"
    assert run(host, "sudo", "sh", "-c", "exit 7").returncode == 7
    assert run(host, "sudo", "-i", "pwd").returncode == 0


def test_a_session_runs_what_was_asked_for_in_the_home_folder(host: Path) -> None:
    done = run(host, "session", SSH_ORIGINAL_COMMAND='pwd; echo "[$SSH_ORIGINAL_COMMAND]"; exit 3')
    assert (done.stdout, done.returncode) == (f"{host}\n[]\n", 3)
    assert run(host, "session", HOME=str(host / "none")).returncode == 255
