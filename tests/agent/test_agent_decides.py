"""What the agent makes of what it sees: the stage of a node, and what it does then."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent.converge import (
    START_LIMIT,
    AskToSave,
    AskToStop,
    Finish,
    PowerOff,
    Report,
    Seen,
    converge,
    find_stage,
    is_due,
)
from orchestrator.agent.local import Local, observe
from tests.agent.agent_world import PATHS, node_config

RUNNING = Local(word="running", alive=True)
EXITED = Local(word="running", alive=False, exit=(0, "running"))
LOST = Local(word="running", alive=False)


@pytest.mark.parametrize(
    ("local", "age", "stage"),
    [
        (Local(), 1, "starting"),
        (Local(), START_LIMIT + 1, "lost"),
        (Local(word="staging", alive=True), 1000, "staging"),
        (Local(word="setup", alive=True), 1, "setup"),
        (Local(word="garbage", alive=True), 1, "starting"),
        (RUNNING, 1000, "running"),
        (EXITED, 1, "exited"),
        (Local(word="running", alive=True, exit=(137, "running")), 1, "exited"),
        (LOST, 1, "lost"),
    ],
)
def test_the_stage_is_what_the_training_says_unless_it_is_gone(local: Local, age: float, stage: str) -> None:
    assert find_stage(local, age) == stage


@pytest.mark.parametrize(
    ("lives", "grace", "at", "due"),
    [
        (3600, 120, 3600 - 141, False),
        (3600, 120, 3600 - 140, True),  # the grace and twenty seconds to upload
        (60, 120, 29, False),
        (60, 120, 30, True),  # of a timer that is shorter than that, half
        (3600, 120, 4000, True),
    ],
)
def test_a_timer_is_due_when_there_is_just_time_to_save(lives: float, grace: float, at: float, due: bool) -> None:
    local = replace(RUNNING, armed=1000.0, deadline=1000.0 + lives)
    assert is_due(local, 1000.0 + at, grace) is due
    assert is_due(replace(local, deadline=None), 1000.0 + at, grace) is False


def test_when_its_timer_is_due_a_node_has_the_training_save_and_goes_once_all_is_in_s3() -> None:
    due = Seen(RUNNING, age=100, synced=False, quiet=0, due=True)
    assert converge(due, linger=600) == (AskToStop(), Report("running"))
    assert converge(replace(due, local=replace(RUNNING, asked=True)), linger=600) == (Report("running"),)
    assert converge(replace(due, local=EXITED), linger=600) == (Finish(), Report("exited"))
    saved = replace(due, local=EXITED, synced=True, quiet=9.0)
    assert converge(saved, linger=600) == (Report("exited"),), "a scheduler that lives is a little quicker"
    assert converge(replace(saved, quiet=10.0), linger=600) == (PowerOff(), Report("exited"))
    assert converge(replace(saved, quiet=10.0, due=False), linger=600) == (Report("exited"),)


def test_while_it_trains_a_node_only_reports() -> None:
    assert converge(Seen(RUNNING, age=10**6, synced=False, quiet=10**6), linger=1) == (Report("running"),)


def test_at_a_notice_the_training_is_asked_to_stop_once_and_before_anything_that_needs_s3() -> None:
    noticed = Seen(RUNNING, age=1, synced=False, quiet=0, noticed=True)
    assert converge(noticed, linger=1) == (AskToStop(), Report("running"))
    assert converge(replace(noticed, local=replace(RUNNING, asked=True)), linger=1) == (Report("running"),)
    assert converge(replace(noticed, local=Local(word="setup", alive=True)), 1)[0] == AskToStop(), (
        "before it began, too"
    )


def test_at_an_advice_a_training_that_runs_is_asked_to_save_but_a_notice_comes_first() -> None:
    advised = Seen(RUNNING, age=1, synced=False, quiet=0, advised=True)
    assert converge(advised, linger=1) == (AskToSave(), Report("running"))
    assert converge(replace(advised, noticed=True), linger=1) == (AskToStop(), Report("running"))
    assert converge(replace(advised, local=Local(word="setup", alive=True)), 1) == (Report("setup"),)


@pytest.mark.parametrize("ended", [EXITED, LOST])
def test_after_the_end_it_saves_first_then_waits_then_turns_off(ended: Local) -> None:
    stage = find_stage(ended, 1)
    assert converge(Seen(ended, 1, synced=False, quiet=10**6), 600) == (Finish(), Report(stage))
    assert converge(Seen(ended, 1, synced=True, quiet=599), 600) == (Report(stage),)
    assert converge(Seen(ended, 1, synced=True, quiet=600), 600) == (PowerOff(), Report(stage))


locals_ = st.builds(
    Local,
    word=st.sampled_from(["", "starting", "staging", "setup", "running", "?"]),
    alive=st.sampled_from([None, True, False]),
    exit=st.none() | st.tuples(st.integers(0, 255), st.sampled_from(["setup", "running"])),
)


seen_ = st.builds(
    Seen,
    local=locals_,
    age=st.floats(0, 1e6),
    synced=st.booleans(),
    quiet=st.floats(0, 1e6),
    noticed=st.booleans(),
    advised=st.booleans(),
)


@given(seen=seen_, linger=st.floats(1, 1e5))
def test_a_machine_is_turned_off_only_when_its_work_ended_and_is_saved_and_nobody_came(
    seen: Seen, linger: float
) -> None:
    actions = converge(seen, linger)
    assert actions == converge(seen, linger)
    assert sum(isinstance(action, Report) for action in actions) == 1
    ended = find_stage(seen.local, seen.age) in {"exited", "lost"}
    assert (PowerOff() in actions) == (ended and seen.synced and seen.quiet >= linger)
    assert (Finish() in actions) == (ended and not seen.synced)
    assert not ({AskToStop(), AskToSave()} & set(actions) and ended)


def test_a_fresh_node_has_nothing_to_see(tmp_path: Path) -> None:
    assert observe(node_config(tmp_path)) == Local()


def test_the_files_of_the_training_are_read_as_they_are(tmp_path: Path) -> None:
    node_config(tmp_path)
    for relative, text in {
        PATHS.stage_file: "running\n",
        PATHS.pid_file: f"{os.getpid()}\n",
        PATHS.exit_file: "143 running\n",
        PATHS.started_file: "1790000000.25\n",
        PATHS.epoch: "7\n",
        PATHS.stop: "",
    }.items():
        (tmp_path / relative).write_text(text)
        os.utime(tmp_path / relative, (100, 100))
    seen = observe(node_config(tmp_path))
    assert seen == Local("running", False, (143, "running"), 100.0, 1790000000.25, 7, 100.0, asked=True)


def test_half_written_files_count_as_not_written(tmp_path: Path) -> None:
    config = node_config(tmp_path)
    for relative in (PATHS.pid_file, PATHS.exit_file, PATHS.started_file, PATHS.epoch):
        (tmp_path / relative).write_bytes(b"\xff")
    seen = observe(config)
    assert (seen.alive, seen.exit, seen.started, seen.epoch) == (None, None, None, 0)


def test_a_process_id_that_another_program_has_now_is_not_the_training(tmp_path: Path) -> None:
    config = node_config(tmp_path)
    runner = config.folder / "run.sh"
    runner.write_text(f"echo $$ >{tmp_path / PATHS.pid_file}; echo; read line\n")
    with subprocess.Popen(["bash", str(runner)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as mine:
        assert mine.stdin is not None
        assert mine.stdout is not None
        mine.stdout.readline()
        assert observe(config).alive is True
        mine.stdin.close()
        mine.wait()
    assert observe(config).alive is False
    (tmp_path / PATHS.pid_file).write_text(str(os.getpid()))
    assert observe(config).alive is False
