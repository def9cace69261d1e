"""`orch dawnbench` reads what the trainer that comes with orch writes: its own reporter speaks here."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.report.dawnbench import TASKS, dataset, read_course
from orchestrator.report.dawnbench_files import Author, model_of
from orchestrator.run.progress import parse_progress
from tests.trainer import leader
from trainer.recipes.imagenet18_sandbox import SIXTEEN


def test_what_the_trainer_reports_is_a_course_with_its_times(tmp_path: Path) -> None:
    for first, last in ((0, 4), (4, 8), (6, 8)):  # resumed where it was evaluated, then from before the last evaluation
        speaker = leader.reporter(tmp_path)
        leader.report(speaker, first, last)
        speaker.pause()
        speaker.snapshot(last)
        speaker.saved(last)
    lines = parse_progress((tmp_path / "progress.jsonl").read_bytes())
    assert dataset(lines) == "x"
    whole, trained = (read_course(lines, TASKS["imagenet"], ignore_eval=ignore) for ignore in (False, True))
    assert whole.starts == 3
    assert [(row.step, row.epoch, row.images) for row in whole.rows] == [(4, 1, 103), (8, 1, 103)]
    assert [dict(row.scores) for row in whole.rows] == [{"top1": 50.0, "top5": 90.0}] * 2
    assert model_of(whole, Author("", "")) == SIXTEEN.model
    stood = [line["seconds"] for line in lines if line.get("event") in {"eval", "checkpoint"}]
    assert len(stood) == 6
    assert all(seconds >= 0 for seconds in stood)
    assert trained.rows[-1].left_out == pytest.approx(sum(stood[:5]))
    times = [line["time"] for line in lines if line.get("event") in {"start", "eval"}]
    assert whole.rows[-1].hours * 3600 == pytest.approx(times[-1] - times[0])
