"""A run told in lines: what is new is said once, training at a sensible pace."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from orchestrator.core.ledger import Recovery, Verdict
from orchestrator.core.preflight import Preflight
from orchestrator.report.figures import low_disks, where
from orchestrator.report.lines import Narrator, attempts, gang_notes, unattended
from orchestrator.report.live import LiveView, screen
from orchestrator.run.view import RunView
from tests.core.worlds import Book, beacon, facts, instance, spec
from tests.report.views import drawn, ended, launched, running, view


def test_a_phase_is_told_once_with_what_the_gang_runs_on() -> None:
    narrator = Narrator()
    first = narrator.tell(running())
    assert any("running: 2 x p3.16xlarge spot in us-east-1a" in line for line in first)
    assert narrator.tell(running(seconds=101)) == []


def test_every_line_has_its_time() -> None:
    assert all(line.startswith("12:01:40  ") for line in Narrator().tell(running(seconds=100)))


def test_zones_that_refused_are_told_each_once() -> None:
    narrator = Narrator()
    book = Book().tried(1, 0, "no-capacity", "InsufficientInstanceCapacity")
    first = narrator.tell(view(book, facts(1)))
    assert [line for line in first if "us-east-1a" in line] == [
        "12:00:01  p3.16xlarge spot in us-east-1a: no capacity (InsufficientInstanceCapacity)"
    ]
    book.tried(2, 1, "no-capacity", "InsufficientInstanceCapacity")
    second = narrator.tell(view(book, facts(2)))
    assert len(second) == 1
    assert "us-east-1b" in second[0]


def test_a_recovery_is_told_once_with_its_cause_and_refusals_after_it_too() -> None:
    narrator, late, book = Narrator(), Narrator(), launched(2).tried(2, 1, "no-capacity")
    narrator.tell(view(book, facts(1)))
    late.tell(view(book, facts(1)))
    lost = Recovery(
        1, "interrupted", "EC2 took node 1 back", {"i-0": 0}, (), 1, 0, graceful=False, trained=True, size=2
    )
    book.add("intent", "recover", 2, **lost.to_json())
    told = narrator.tell(view(book, facts(2)))
    assert "12:00:02  EC2 took node 1 back; 1 of 2 nodes stay, generation 2" in told
    assert any("recovering: 2 x p3.16xlarge" in line for line in told)
    book.tried(1, 0, "no-capacity", "InsufficientInstanceCapacity", generation=2, count=1)
    (refused,) = narrator.tell(view(book, facts(3)))
    assert "us-east-1a: no capacity" in refused
    assert refused in late.tell(view(book, facts(3))), "also when both came between two looks"


def test_a_cap_that_is_near_is_told_once() -> None:
    narrator, line = Narrator(), "has lasted 48m20s, 80% of max_duration 1h00m"
    assert any(line in said for said in narrator.tell(running(seconds=2900)))
    assert not any(line in said for said in narrator.tell(running(seconds=2901)))
    assert "95% of max_duration" in " ".join(narrator.tell(running(seconds=3500)))


def test_an_attempt_whose_outcome_is_open_is_not_told() -> None:
    assert attempts(view(Book().tried(1, 0, None), facts(1))) == []


def test_nodes_are_told_as_counts_and_staging_as_a_share() -> None:
    nodes = [instance(0), instance(1)]
    said = [
        beacon(0, "staging", 10, started=None, staged=2**20, to_stage=2**22, stage_rate=2**20),
        beacon(1, "setup", 10, started=None),
    ]
    lines = Narrator().tell(view(launched(2), facts(10, nodes, said)))
    assert any("nodes: 1 staging, 1 setup  data 25% of 4.0 MiB, 1.0 MiB/s, 3s left" in line for line in lines)


def test_a_disk_that_is_nearly_full_is_told_once_before_it_is_full() -> None:
    narrator = Narrator()
    assert not any("disk" in line for line in narrator.tell(running(disk_free=6 * 2**30)))
    (low,) = narrator.tell(running(seconds=101, disk_free=2**30))
    assert "the disk of node 0 and 1 more is nearly full (1.0 GiB of 100 GiB left): raise resources.disk_size" in low
    assert narrator.tell(running(seconds=102, disk_free=2**29)) == []
    over = low_disks(ended(Verdict("finished", "done")))
    assert over == ""


def test_a_gang_that_is_slow_as_a_whole_is_told_so_once_and_shown_for_as_long_as_it_trains() -> None:
    narrator, note = Narrator(), "links give 15 MB/s, this type should give 1.25 GB/s"
    found = Preflight(notes=(note,), seconds=1.0).to_json()
    assert not any("preflight:" in line for line in narrator.tell(running()))
    assert sum(f"preflight: {note}" in line for line in narrator.tell(running(seconds=101, preflight=found))) == 1
    assert narrator.tell(running(seconds=102, preflight=found)) == []
    screenful = io.StringIO()
    console = Console(file=screenful, width=120, height=40, force_terminal=True)
    with LiveView(console) as live:
        live.update(running(preflight=found))
    assert f"preflight: {note}" in screenful.getvalue()
    slow = ended(Verdict("finished", "done"))
    assert gang_notes(replace(slow, facts=running(preflight=found).facts)) == []


def test_nodes_that_were_asked_to_stop_and_saved_have_not_failed() -> None:
    stopped = running(stage="exited", exit_code=1, stopped_step=40)
    assert any("nodes: 2 stopped" in line for line in Narrator().tell(stopped))
    assert "2 stopped" in drawn(screen(stopped, [], width=120, height=40))
    assert any("nodes: 2 failed" in line for line in Narrator().tell(running(stage="exited", exit_code=1)))


def test_training_is_told_at_most_every_ten_seconds_but_at_every_epoch() -> None:
    narrator = Narrator()

    def trained(seconds: float, epoch: int, step: int) -> list[str]:
        told = narrator.tell(running(seconds=seconds, metrics={"epoch": epoch, "step": step, "loss": 2.5}))
        return [line for line in told if "loss" in line]

    assert len(trained(100, 0, 1)) == 1
    assert trained(103, 0, 2) == []
    assert len(trained(104, 1, 3)) == 1
    assert trained(109, 1, 4) == []
    assert len(trained(115, 1, 5)) == 1
    assert trained(130, 1, 5) == []


def test_training_lines_carry_the_dollars_of_both_kinds() -> None:
    line = Narrator().tell(running(seconds=3600, metrics={"step": 1}))[-1]
    assert "$14.71, on-demand $48.98, saving 70%" in line


def test_what_changes_is_told_and_not_what_the_training_said_of_itself_at_its_start() -> None:
    about = {"recipe": "x", "scale": "full", "dataset": "digits", "classes": 10, "world_size": 4}
    line = Narrator().tell(running(metrics=about | {"step": 1, "lr": 0.25, "image_size": 36}))[-1]
    assert "step 1 · lr 0.25 · image_size 36  $" in line


def test_a_run_without_a_scheduler_says_what_to_do_once_and_not_for_a_moment_without() -> None:
    narrator = Narrator()

    def warned(seconds: float, scheduler: str | None) -> bool:
        told = narrator.tell(running(scheduler=scheduler, seconds=seconds))
        return any("`orch resume tiny-20261120-120000-abcd`" in line for line in told)

    alone = [(100, None), (103, None), (104, "here"), (105, None), (109, None), (110, None), (120, None)]
    assert [warned(*reading) for reading in alone] == [False, False, False, False, False, True, False]


def test_a_run_that_is_young_or_over_needs_no_scheduler() -> None:
    assert unattended(running(scheduler=None, seconds=10)) == ""
    assert unattended(running(scheduler="here (process 7)")) == ""
    assert unattended(ended(Verdict("finished", "all done"))) == ""


def varying(book: Book, seconds: float, nodes: int, **spare: Any) -> RunView:
    """Return a run of two to four nodes, some of which train; `spare` is a node beside them."""
    said = [beacon(index, "running", seconds) for index in range(nodes)]
    machines = [instance(index) for index in range(nodes)] + ([instance(9, **spare)] if spare else [])
    return replace(view(book, facts(seconds, machines, said), num_nodes=4), spec=spec(4, min_nodes=2))


def test_a_gang_that_lacks_nodes_says_what_it_waits_for() -> None:
    book, narrator = launched(3), Narrator()
    assert any(
        "goes on with 3 of 4 nodes, waiting for capacity" in line for line in narrator.tell(varying(book, 60, 3))
    )
    book.tried(2, 0, "no-capacity", count=1, seconds=60, spare=True)
    refused = varying(book, 61, 3)
    assert any("waiting for capacity, next try at 12:01:30" in line for line in narrator.tell(refused))
    assert narrator.tell(varying(book, 65, 3)) == [], "once"
    assert refused.summary()["message"] == "goes on with 3 of 4 nodes, waiting for capacity, next try at 12:01:30"
    book.tried(3, 0, "launched", ids=["i-9"], count=1, seconds=90, spare=True)
    booting = varying(book, 91, 3, state="pending", private_ip=None)
    assert any("goes on with 3 of 4 nodes, 1 boot" in line for line in narrator.tell(booting))
    assert any("1 will join" in line for line in narrator.tell(varying(book, 120, 3, state="running")))
    assert varying(launched(4), 60, 4).outlook == ""


def test_a_gang_that_grew_says_so() -> None:
    grown = Recovery(
        1, "grown", "1 more node booted", {"i-0": 0, "i-9": 1}, (), 0, 0, graceful=True, trained=True, size=1
    )
    book = launched(1).add("intent", "recover", 60, **grown.to_json())
    line = next(line for line in Narrator().tell(view(book, facts(61, [instance(0), instance(9)]))) if "grows" in line)
    assert line.endswith("1 more node booted; the gang grows from 1 to 2 nodes, generation 2")


def test_where_a_mixed_gang_runs_names_both() -> None:
    machines = [instance(0), instance(1, lifecycle="on-demand")]
    assert where(view(launched(2), facts(60, machines))) == "1 spot + 1 on-demand x p3.16xlarge in us-east-1a"
