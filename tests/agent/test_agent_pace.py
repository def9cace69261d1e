"""How long a training pauses and how long it has written nothing, as the agent of its node sees it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orchestrator.agent.main import Agent
from orchestrator.agent.pace import Pace
from orchestrator.agent.store import Opener
from tests.agent.agent_world import PATHS, FolderStore, node_config
from tests.agent.test_agent_ticks import beacon_of, write


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "s3")


def test_the_beacon_tells_how_long_nothing_was_written_and_how_long_the_training_pauses(
    tmp_path: Path, store: FolderStore
) -> None:
    config = node_config(tmp_path)
    agent = Agent(config, Opener(lambda: store), lambda: None)
    agent.tick()
    assert (beacon_of(store).quiet, beacon_of(store).pause) == (0.0, None), "before it began"
    write(tmp_path, PATHS.stage_file, "running\n")
    write(tmp_path, PATHS.progress, "".join(f'{{"step": {i}, "time": {t}}}\n' for i, t in enumerate((10, 14, 13, 30))))
    agent.tick()
    assert beacon_of(store).pause is None
    write(tmp_path, PATHS.progress, (tmp_path / PATHS.progress).read_text() + '{"step": 4, "time": 31}\n')
    (config.checkpoint_folder / ".tmp-4" / "deep").mkdir(parents=True)
    (config.checkpoint_folder / ".tmp-4" / "deep" / "state").touch()
    config.run_log.touch()
    old = time.time() - 1000
    for file in (tmp_path / PATHS.progress, config.run_log, config.checkpoint_folder / ".tmp-4" / "deep" / "state"):
        os.utime(file, (old, old))
    Agent(config, Opener(lambda: store), lambda: None).tick()
    assert beacon_of(store).pause == 16.0
    assert beacon_of(store).quiet >= 1000
    (config.checkpoint_folder / ".tmp-4" / "deep" / "state").touch()
    Agent(config, Opener(lambda: store), lambda: None).tick()
    assert beacon_of(store).quiet < 900, "a checkpoint is being written"


def test_lines_without_a_time_count_by_when_they_were_read() -> None:
    pace = Pace()
    for moment in (100.0, 101.0, 109.0):
        pace.take([{"step": 1}, {"step": 2}], moment)
    assert pace.pause is None
    pace.take([{"step": 1, "time": True}], 110.0)
    assert pace.pause == 8.0
