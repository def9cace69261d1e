"""The probe, which tells whether anything of a run still lives on a node, in a real bash with a real tmux."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core.contract import NodePaths
from orchestrator.node.start import DESERTED, kill_script, probe_script, start_script
from tests.node.node_host import RUN, Host, config, end, log, new_host, wait_for, with_environment

PATHS = NodePaths(RUN, 1)


@pytest.fixture
def host() -> Iterator[Host]:
    with new_host() as made:
        made.boot()
        yield made


def test_a_node_is_deserted_when_neither_agent_nor_training_lives_there(host: Host) -> None:
    assert host.run(probe_script(RUN)).returncode == DESERTED
    host.run(start_script(config("echo begun; sleep 1000")))
    wait_for(lambda: "begun" in log(host))
    assert host.run(probe_script(RUN)).stdout == "alive\n"
    end(f"ORCH_AGENT_OF={host.file(PATHS.generation_dir)}")
    assert host.run(probe_script(RUN)).returncode == 0, "the training lives"
    host.run(kill_script(RUN, 1, 1, timedelta(0)))
    assert host.run(probe_script(RUN)).returncode == DESERTED
    assert host.run(start_script(config("true", generation=2))).stdout == "started\n"
    host.ended(2)
    assert host.run(probe_script(RUN)).returncode == 0, "the agent lives"


def test_a_node_that_is_just_being_given_its_next_generation_is_not_deserted(host: Host) -> None:
    host.run(start_script(config("true")))
    host.ended()
    end(f"ORCH_AGENT_OF={host.file(PATHS.generation_dir)}")
    lock = host.file(PATHS.bundle).parent / "lock"
    starts = (
        f"exec 9>{lock}; flock 9; echo held; read -r; ORCH_AGENT_OF={host.file(PATHS.generation_dir)} sleep 100 9>&- &"
    )
    with subprocess.Popen(
        ["bash", "-c", starts], env=host.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        asking = subprocess.Popen(["bash", "-s"], env=host.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert asking.stdin is not None
        asking.stdin.write(probe_script(RUN))
        asking.stdin.close()
        wait_for(lambda: with_environment(f"HOME={host.home}") and waits_for(lock))
        holder.stdin.write("\n")
        holder.stdin.close()
        assert asking.wait(20) == 0


def waits_for(lock: Path) -> bool:
    """Tell whether a process waits for a file's lock."""
    return any(
        "->" in line and f":{lock.stat().st_ino} " in line for line in Path("/proc/locks").read_text().splitlines()
    )
