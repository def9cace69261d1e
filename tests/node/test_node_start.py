"""The start, stop and kill scripts in a real bash with a real tmux."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.contract import NodePaths
from orchestrator.node.start import (
    NOT_BOOTED,
    NOT_ENDING,
    REFUSED,
    DataSource,
    arm_script,
    kill_script,
    leave_script,
    probe_script,
    start_script,
    stop_script,
)
from tests.node.node_host import RUN, Host, config, log, new_host, wait_for, with_environment

PATHS = NodePaths(RUN, 1)
SESSION = f"orch-{RUN}"


@pytest.fixture
def host() -> Iterator[Host]:
    with new_host() as made:
        made.boot()
        yield made


def alive(host: Host, generation: int = 1) -> list[str]:
    return with_environment(f"ORCH_STOP_FILE={host.home}/{NodePaths(RUN, generation).stop}")


def test_start_runs_setup_then_run_in_the_workdir_with_the_contract_in_the_environment(host: Host) -> None:
    (host.file(PATHS.bundle) / "workdir" / "here.txt").write_text("the workdir")
    done = host.run(
        start_script(
            config(
                'cat here.txt; echo "$ORCH_NODE_RANK of $ORCH_NUM_NODES at $ORCH_PROGRESS_FILE"; echo "$GREETING"',
                setup="echo setting up",
                envs={"GREETING": 'it\'s $HOME; `date` "quoted"\nsecond line'},
                rank=1,
                node_ips=("127.16.0.1", "127.16.0.2"),
            )
        )
    )
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert host.ended() == "0 running"
    expected = f"1 of 2 at {host.home}/{PATHS.progress}"
    text = log(host)
    assert text.index("setting up") < text.index("the workdir") < text.index(expected)
    assert 'it\'s $HOME; `date` "quoted"\nsecond line\n' in text
    assert float(host.file(PATHS.started_file).read_text()) > 1.7e9


@pytest.mark.parametrize(
    ("device", "efa", "envs", "provider"),
    [("cuda", 4, {}, "efa"), ("cuda", 4, {"FI_PROVIDER": "tcp"}, "tcp"), ("cuda", 0, {}, ""), ("cpu", 4, {}, "")],
)
def test_nccl_is_told_of_efa_where_a_machine_has_it_unless_the_experiment_says_otherwise(
    device: str, efa: int, envs: dict[str, str], provider: str
) -> None:
    script = start_script(config("true", device=device, efa=efa, envs=envs)).decode()
    assignment = next(line for line in script.splitlines() if line.startswith("env_text="))
    text = script[script.index(assignment) : script.index("secrets_text=")]
    shown = f'{text}\nunset FI_PROVIDER\neval "$env_text"\nprintf %s "$FI_PROVIDER"'
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout == provider


def test_the_session_has_three_windows_and_keeps_the_last_output_of_the_training(host: Host) -> None:
    host.run(start_script(config("echo last words; exit 3")))
    assert host.ended() == "3 running"
    windows = host.tmux("list-windows", "-t", f"={SESSION}", "-F", "#{window_name}").split()
    assert windows == ["train", "agent", "shell"]
    wait_for(lambda: "1" in host.tmux("list-panes", "-t", f"={SESSION}:train", "-F", "#{pane_dead}"))
    assert "last words" in host.tmux("capture-pane", "-p", "-S", "-", "-t", f"={SESSION}:train")


def test_a_tmux_configuration_of_the_image_changes_nothing(host: Host) -> None:
    (host.home / ".tmux.conf").write_text("set -g destroy-unattached on\nset -g base-index 5\n")
    host.run(start_script(config("echo through")))
    assert host.ended() == "0 running"
    assert host.tmux("list-windows", "-t", f"={SESSION}", "-F", "#{window_index}").split() == ["0", "1", "2"]


def test_a_second_start_of_the_same_generation_changes_nothing(host: Host) -> None:
    host.run(start_script(config("echo once; sleep 60")))
    wait_for(lambda: "once" in log(host))
    pid = host.file(PATHS.pid_file).read_text()
    again = host.run(start_script(config("echo twice", epoch=2)))
    assert (again.returncode, again.stdout) == (0, "already\n")
    assert host.file(PATHS.pid_file).read_text() == pid
    assert "twice" not in log(host)
    assert host.file(PATHS.epoch).read_text() == "2\n"


def test_starts_that_arrive_together_start_one_training(host: Host) -> None:
    script = start_script(config("echo begun; sleep 60")).decode()
    both = [
        subprocess.Popen(["bash", "-s"], env=host.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for one in both:
        assert one.stdin is not None
        one.stdin.write(script)
        one.stdin.close()
    answers = sorted(one.stdout.read() for one in both if one.stdout is not None)
    assert [one.wait(20) for one in both] == [0, 0, 0]
    assert answers == ["already\n", "already\n", "started\n"]
    wait_for(lambda: "begun" in log(host))
    assert log(host).count("begun") == 1


@pytest.mark.parametrize(
    ("until", "left", "minutes"),
    [(630, 630, 10), (659, 700, 10), (3600, 659, 10), (659, 3600, 10), (20, 20, 1), (-500, 900, 1)],
)
def test_a_timer_is_armed_anew_for_whole_minutes_by_whichever_clock_ends_it_sooner(
    host: Host, until: float, left: float, minutes: int
) -> None:
    before = datetime.now(UTC)
    host.file(PATHS.deadline).write_text("1\n")
    done = host.run(arm_script(RUN, 1, 1, before + timedelta(seconds=until), timedelta(seconds=left)))
    assert (done.returncode, done.stdout) == (0, "armed\n")
    # Minutes that end soon may have ended while bash started.
    armed = [call for call in host.called() if call.startswith(("shutdown", "sudo"))]
    assert armed == [f"{'' if os.geteuid() == 0 else 'sudo -n '}shutdown -P +{minutes}"]
    ends = int(host.file(PATHS.deadline).read_text()) - int(before.timestamp())
    assert 60 * minutes <= ends <= 60 * minutes + (datetime.now(UTC) - before).total_seconds() + 1


def test_a_timer_that_cannot_be_armed_stays_what_it_was(host: Host) -> None:
    host.shim("shutdown", "exit 1")
    host.shim("sudo", "exit 1")
    host.file(PATHS.deadline).write_text("7\n")
    done = host.run(arm_script(RUN, 1, 1, datetime.now(UTC) + timedelta(hours=1), timedelta(hours=1)))
    assert done.returncode == NOT_ENDING
    assert host.file(PATHS.deadline).read_text() == "7\n"


@pytest.mark.parametrize(
    "script",
    [
        start_script(config("true", epoch=4)),
        stop_script(RUN, 1, 4),
        kill_script(RUN, 1, 4),
        arm_script(RUN, 1, 4, datetime.now(UTC), timedelta(hours=1)),
    ],
)
def test_a_lower_epoch_is_refused_and_changes_nothing(host: Host, script: bytes) -> None:
    host.run(start_script(config("sleep 60", epoch=5)))
    done = host.run(script)
    assert done.returncode == REFUSED
    assert "epoch 4" in done.stderr
    assert host.file(PATHS.epoch).read_text() == "5\n"
    assert not host.file(PATHS.stop).exists()
    assert not host.file(PATHS.exit_file).exists()


def test_a_node_that_has_not_booted_says_so() -> None:
    with new_host() as bare:
        done = bare.run(start_script(config("true")))
        assert done.returncode == NOT_BOOTED
        assert "has not booted" in done.stderr


def test_secrets_reach_the_training_in_a_file_that_only_its_owner_reads(host: Host) -> None:
    value = "s3cr3t 'with' \"quotes\" $HOME\n-and a second line"
    host.run(start_script(config('[ "$TOKEN" = "$(cat wanted)" ] && echo same', secrets={"TOKEN": value})))
    (host.file(PATHS.bundle) / "workdir" / "wanted").write_text(value)
    host.ended()
    file = host.file(PATHS.secrets_file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for other in host.file(PATHS.generation_dir).rglob("*"):
        assert other == file or not other.is_file() or b"s3cr3t" not in other.read_bytes(), other


def test_the_first_command_that_fails_ends_setup_and_the_run_does_not_begin(host: Host) -> None:
    host.run(start_script(config("echo run", setup="echo one\nfalse | true\necho two")))
    assert host.ended() == "1 setup"
    assert "one" in log(host)
    assert "two" not in log(host)
    assert not host.file(PATHS.started_file).exists()


def test_output_and_errors_reach_the_log_in_the_order_they_were_written(host: Host) -> None:
    host.run(start_script(config("for i in {1..300}; do echo out $i; echo err $i >&2; done")))
    host.ended()
    lines = [line for line in log(host).splitlines() if not line.startswith("orch:")]
    assert lines == [f"{kind} {i}" for i in range(1, 301) for kind in ("out", "err")]


def test_cuda_with_a_gpu_missing_fails_before_setup(host: Host) -> None:
    host.shim("nvidia-smi", 'echo "GPU 0: V100"')
    host.run(start_script(config("echo run", setup="echo setup", device="cuda", procs_per_node=2)))
    assert host.ended() == "1 starting"
    assert "wants 2 GPUs on each node, nvidia-smi shows 1" in log(host)
    assert "setup" not in log(host).replace("orch:", "")


def test_stop_makes_the_stop_file_appear_and_says_so_once(host: Host) -> None:
    host.run(start_script(config('until [ -e "$ORCH_STOP_FILE" ]; do sleep 0.05; done; echo saved')))
    assert host.run(stop_script(RUN, 1, 1)).stdout == "stopping\n"
    assert host.ended() == "0 running"
    assert host.run(stop_script(RUN, 1, 1)).stdout == "already\n"


def test_kill_ends_every_process_of_the_training_and_leaves_its_exit_code(host: Host) -> None:
    # One in a session of its own that ignores SIGTERM, one that forked twice: as torchrun's workers and daemons do.
    stubborn = "setsid bash -c 'trap \"\" TERM; touch stubborn; while :; do sleep 0.1; done' &"
    forked = "(setsid bash -c 'touch forked; exec sleep 1000' &)"
    polite = "setsid bash -c 'trap \"touch goodbye; exit\" TERM; touch polite; while :; do sleep 0.1; done' &"
    host.run(start_script(config(f"{stubborn}\n{forked}\n{polite}\nsleep 1000")))
    work = host.file(PATHS.bundle) / "workdir"
    wait_for(lambda: all((work / name).exists() for name in ("stubborn", "forked", "polite")))
    done = host.run(kill_script(RUN, 1, 1, timedelta(seconds=0.5)))
    assert (done.returncode, done.stdout) == (0, "killed\n"), done.stderr
    assert alive(host) == []
    assert (work / "goodbye").exists(), "each was asked before it was made to"
    assert host.ended() == "143 running"
    assert host.run(kill_script(RUN, 1, 1)).stdout == "already\n"


def test_kill_before_the_start_says_that_nothing_runs(host: Host) -> None:
    assert host.run(kill_script(RUN, 1, 1)).stdout == "not running\n"


def test_a_background_process_that_holds_the_log_open_does_not_hold_up_the_end(host: Host) -> None:
    host.run(start_script(config("setsid sleep 1000 & echo done")))
    assert host.ended() == "0 running"
    assert "done" in log(host)
    file = host.file(PATHS.exit_file).stat()
    # It waited two seconds for the log; of a gang the first that failed is named by when it failed, not by its log.
    assert file.st_mtime < file.st_ctime - 1.5


def test_run_sh_itself_runs_a_generation_only_once(host: Host) -> None:
    host.run(start_script(config("echo begun")))
    host.ended()
    runner = host.file(PATHS.generation_dir) / "run.sh"
    again = subprocess.run(["bash", str(runner)], env=host.env, capture_output=True, text=True, check=False, timeout=20)
    assert "it runs once" in again.stdout
    assert log(host).count("begun") == 1


def test_a_training_outlives_its_tmux_server_and_is_not_begun_again(host: Host) -> None:
    command = 'echo begun; until [ -e "$ORCH_STOP_FILE" ]; do sleep 0.05; done; echo through; exit 4'
    host.run(start_script(config(command, secrets={"TOKEN": "s3cr3t"})))
    wait_for(lambda: "begun" in log(host))
    server = int(host.tmux("display-message", "-p", "#{pid}"))
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: not host.tmux("list-sessions"))
    assert host.run(start_script(config("echo again"))).stdout == "already\n"
    assert "s3cr3t" in host.file(PATHS.secrets_file).read_text(), "the agent must still know what to hide"
    wait_for(lambda: "begun" in host.tmux("capture-pane", "-p", "-t", f"={SESSION}:train"))
    assert host.run(stop_script(RUN, 1, 1)).stdout == "stopping\n"
    assert host.ended() == "4 running"
    assert "through" in log(host)
    assert "again" not in log(host)


def test_a_vanished_training_is_not_begun_again_either(host: Host) -> None:
    host.run(start_script(config("echo begun; sleep 1000")))
    wait_for(lambda: "begun" in log(host))
    runner = int(host.file(PATHS.pid_file).read_text())
    os.killpg(runner, signal.SIGKILL)
    host.tmux("kill-server")
    assert host.run(start_script(config("echo again"))).stdout == "already\n"
    wait_for(lambda: "agent" in host.tmux("list-windows", "-t", f"={SESSION}", "-F", "#{window_name}"))
    assert int(host.file(PATHS.pid_file).read_text()) == runner
    assert "again" not in log(host)


def test_a_new_generation_ends_the_older_training_first(host: Host) -> None:
    host.run(start_script(config("echo old; sleep 1000")))
    wait_for(lambda: "old" in log(host))
    done = host.run(start_script(config("echo new; sleep 1000", generation=2, epoch=2)))
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    assert host.ended(1) == "143 running"
    assert alive(host, 1) == []
    wait_for(lambda: alive(host, 2))
    assert with_environment(f"ORCH_AGENT_OF={host.file(PATHS.generation_dir)}") == []
    overtaken = host.run(start_script(config("true", generation=1, epoch=3)))
    assert (overtaken.returncode, overtaken.stdout.strip()) == (0, "already")


def test_data_and_checkpoints_are_fetched_only_where_there_may_be_some() -> None:
    changes: Any = ({"restore_step": 7}, {"trained": True}, {"data": (DataSource("s", "s3://b/p", "m"),)}, {})
    scripts = [start_script(config("true", generation=2, **change)) for change in changes]
    told = [re.search(rb"^stages=.*\bstage\b", script, re.MULTILINE) is not None for script in scripts]
    assert told == [True, True, True, False], "in the last the start before was given up before it trained"


def test_a_tmux_server_that_goes_as_it_is_asked_is_asked_once_more(host: Host) -> None:
    # So does a real one whose last session, here the older generation's, was killed a moment before.
    host.run(start_script(config("true")))
    host.ended()
    real = shutil.which("tmux", path=host.env["PATH"].partition(":")[2])
    dropped = host.home / "dropped"
    drops = f'[[ "$*" != *start-server* || -e {dropped} ]] || {{ >{dropped}; echo server exited >&2; exit 1; }}'
    host.shim("tmux", f'{drops}\nexec {real} "$@"')
    done = host.run(start_script(config("true", generation=2)))
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert dropped.exists()
    assert host.ended(2) == "0 running"
    assert host.tmux("list-windows", "-t", f"={SESSION}", "-F", "#{window_name}").split() == ["train", "agent", "shell"]


def test_a_machine_that_becomes_an_image_keeps_nothing_of_the_run_and_no_key_that_opens_it(host: Host) -> None:
    host.run(start_script(config("true")))
    host.ended()
    (host.home / ".ssh").mkdir()
    (host.home / ".ssh" / "authorized_keys").write_text("the run's")
    (host.home / "tool").write_text("made by a step")
    for _ in range(2):
        assert host.run(leave_script(RUN)).stdout == "left\n"
        assert not (host.home / "orch").exists()
        assert list((host.home / ".ssh").iterdir()) == []
        assert (host.home / "tool").exists()
    wait_for(lambda: not with_environment(f"ORCH_AGENT_OF={host.file(PATHS.generation_dir)}"))


def test_names_that_could_run_as_shell_are_refused() -> None:
    with pytest.raises(ValueError, match="environment variable"):
        config("true", envs={"A;touch /tmp/x": "1"})
    with pytest.raises(ValueError, match="no start"):
        config("true", run="$(touch x)")
    with pytest.raises(ValueError, match="not a run id"):
        stop_script("../../x", 1, 1)
    with pytest.raises(ValueError, match="not a run id"):
        probe_script("../../x")
