"""The live view fits its terminal, whatever the gang, and says what matters."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestrator.report.live import LiveView, screen
from orchestrator.run.view import RunView
from tests.core.worlds import Book, beacon, facts, instance
from tests.report.views import drawn, launched, running, view


def shown(run: RunView, width: int = 120, height: int = 40, losses: tuple[float, ...] = ()) -> str:
    return drawn(screen(run, losses, width=width, height=height), width, height)


def test_the_header_has_run_phase_time_and_dollars() -> None:
    text = shown(running(seconds=3600))
    assert "tiny-20261120-120000-abcd" in text
    assert "running" in text
    assert "1h00m" in text
    assert "2 x p3.16xlarge spot in us-east-1a · $14.71, on-demand $48.98, saving 70%" in text


def test_few_nodes_get_a_row_each_with_address_stage_and_step() -> None:
    rows = shown(running(progress={"step": 41})).splitlines()
    row = next(line for line in rows if "127.16.0.11" in line)
    assert row.split() == ["1", "us-east-1a", "127.16.0.11", "running", "41"]


def test_staging_shows_how_far_each_node_is() -> None:
    text = shown(running(stage="staging", started=None, staged=2**20, to_stage=2**21))
    assert "staging 50% of 2.0 MiB" in text
    text = shown(running(stage="staging", started=None, staged=2**20, to_stage=2**21, stage_rate=2**19))
    assert "staging 50% of 2.0 MiB, 512.0 KiB/s, 2s left" in text
    text = shown(running(staged=2**20, to_stage=2**21, stage_rate=2**19))
    assert "running (data 50% of 2.0 MiB, 512.0 KiB/s, 2s left)" in text
    assert "data" not in shown(running(staged=2**21, to_stage=2**21, stage_rate=2**19))


@pytest.mark.parametrize("height", [12, 24, 30, 60])
@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("num_nodes", [1, 16, 64, 512])
def test_the_view_never_outgrows_the_terminal(num_nodes: int, width: int, height: int) -> None:
    run = running(num_nodes, metrics={"step": 3, "loss": 1.5}, progress={"step": 3})
    text = shown(run, width, height, losses=(3.0, 2.0))
    assert len(text.splitlines()) <= height
    assert all(len(line) <= width for line in text.splitlines())


def test_sixty_four_nodes_are_all_there_on_an_ordinary_terminal() -> None:
    text = shown(running(64, progress={"step": 7}), 100, 30)
    assert "64 running" in text
    assert all(f"{rank} running 7" in text for rank in (0, 31, 63))


def test_on_a_small_terminal_the_cells_shrink_before_they_go() -> None:
    text = shown(running(64, progress={"step": 7}), 80, 24)
    assert all(f"{rank} running" in text for rank in (0, 31, 63))
    assert "63 running" not in shown(running(64), 80, 12)


def test_the_training_line_and_the_course_of_the_loss_are_shown() -> None:
    metrics = {
        "epoch": 3,
        "epochs": 18,
        "step": 120,
        "loss": 1.2345,
        "top1": 45.1,
        "top5": 70.25,
        "images_per_second": 1234.5,
    }
    text = shown(running(metrics=metrics), losses=(3.0, 2.0, 1.0))
    assert "epoch 3/18 · step 120 · loss 1.234 · top-1 45.10% · top-5 70.25% · 1,234 images/s" in text
    assert "loss █▅▁" in text


def test_a_node_that_failed_shows_its_last_words_harmless() -> None:
    said = [
        beacon(0, "running", 50),
        beacon(1, "exited", 50, exit_code=1, exit_stage="run", tail=("Traceback", "\x1b[31mValueError: no\x1b[0m")),
    ]
    text = shown(view(launched(2), facts(50, [instance(0), instance(1)], said)))
    assert "failed (code 1)" in text
    assert "[1] ValueError: no" in text
    assert "\x1b" not in text


def test_before_a_launch_the_refusals_are_shown() -> None:
    text = shown(view(Book().tried(1, 0, "no-capacity", "InsufficientInstanceCapacity"), facts(3)))
    assert "launching" in text
    assert "us-east-1a: no capacity (InsufficientInstanceCapacity)" in text


def test_metrics_of_any_script_are_shown_without_trusting_them() -> None:
    text = shown(running(metrics={"step": "\x1b[2Jx", "loss": "high", "accuracy": 0.51234, "[bold]note": True}))
    assert "accuracy 0.5123" in text
    assert "[bold]note True" in text
    assert "\x1b" not in text


def test_what_the_reader_has_to_say_is_shown() -> None:
    text = drawn(screen(running(), (), width=100, height=30, notes=["S3 does not answer; trying again (3 s)", ""]))
    assert "S3 does not answer; trying again (3 s)" in text


def test_updates_redraw_in_one_write_each() -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            Counting.writes += bool(text)
            return super().write(text)

    stream = Counting()
    console = Console(file=stream, force_terminal=True, width=100, height=30, markup=False)
    with LiveView(console) as live:
        live.update(running(seconds=100))
        before = Counting.writes
        live.update(running(seconds=101))
        assert Counting.writes - before == 1
