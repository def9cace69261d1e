"""`status --timing` and `doctor RUN`: what nodes told of their start, as a table and as JSON, also of a run gone."""

from __future__ import annotations

import json
from dataclasses import replace

from orchestrator.core.beacon import Mark
from orchestrator.core.facts import Node
from orchestrator.core.ledger import Recovery
from orchestrator.core.preflight import Check, Preflight
from orchestrator.run.home import CachedRun
from orchestrator.run.view import RunView
from tests.cli.fake_clouds import Orch
from tests.core.worlds import at
from tests.report.views import running

RUN = "tiny-20261120-120000-abcd"
TIMES = ((0, "bundle", 30), (0, "ready", 31), (1, "starting", 32), (1, "preflight", 33), (1, "running", 35.5))
CHECKS = (Check("disk", "ok", "9 GiB free"), Check("clock", "warn", "3 s off"))


def told(unfit: dict[int, str] | None = None) -> RunView:
    found = Preflight(CHECKS, {1: 2.5e9}, 1e9, None, 1.25e9, unfit or {}, ("links are slow",), (), 0.5)
    times = tuple(Mark(generation, stage, at(when).timestamp()) for generation, stage, when in TIMES)
    return running(preflight=found.to_json(), times=times)


def test_timing_shows_the_seconds_of_every_stage(run_orch: Orch) -> None:
    run_orch.cloud.add(told())
    rows = json.loads(run_orch("status", "--timing", "--json").stdout)
    assert [(row["rank"], row["generation"], row["now"], row["total"]) for row in rows] == [
        (0, 1, "rendezvous", 35.5),
        (1, 1, "rendezvous", 35.5),
    ]
    assert rows[0]["stages"] == {"request": 0.0, "boot": 30.0, "bundle": 1.0, "ssh": 2.0, "preflight": 2.5}
    lines = run_orch("status", "tiny", "--timing").stdout.splitlines()
    assert lines[0].split() == ["NODE", "REQUEST", "BOOT", "BUNDLE", "SSH", "PREFLIGHT", "RENDEZVOUS", "TOTAL"]
    assert lines[1].split() == ["0", "0.0", "30.0", "1.0", "2.0", "2.5", "+", "35.5+"]


def test_a_run_of_which_nothing_was_told_says_so(run_orch: Orch) -> None:
    run_orch.cloud.add(running())
    assert "has told how it started yet" in run_orch("status", "--timing").stdout
    assert "has told of its preflight" in run_orch("doctor", RUN).stdout


def test_doctor_of_a_run_shows_its_preflight(run_orch: Orch) -> None:
    run_orch.cloud.add(told())
    result = run_orch("doctor", RUN)
    assert result.exit_code == 0
    header, first, *_ = result.stdout.splitlines()
    assert header.split() == ["NODE", "START", "INSTANCE", "DISK", "CLOCK", "BEST", "LINK", "WORST", "LINK", "RESULT"]
    assert first.split()[:3] == ["0", "1", "i-0"]
    assert "warn: 3 s off" in first
    assert first.split()[-5:] == ["2.50", "GB/s", "2.50", "GB/s", "fit"]
    assert "a link should give 1.25 GB/s, took 0.5 s" in result.stdout
    assert "links are slow" in result.stdout


def test_an_unfit_node_is_exit_code_one_and_keeps_its_reason(run_orch: Orch) -> None:
    run_orch.cloud.add(told({1: "its best link gives little"}))
    result = run_orch("doctor", RUN, "--json")
    assert result.exit_code == 1
    assert [row["unfit"] for row in json.loads(result.stdout)] == [None, "its best link gives little"]
    assert "unfit: its best link gives little" in run_orch("doctor", RUN).stdout


def test_a_node_that_was_replaced_before_it_heard_the_verdict_keeps_the_reason_of_the_ledger(run_orch: Orch) -> None:
    seen = told()
    why = {"i-1": "its best link gives little"}
    lost = Recovery(1, "lost", "m", {"i-0": 0}, ("i-1",), 1, 0, graceful=False, trained=False, size=2, unfit=why)
    run_orch.cloud.add(replace(seen, ledger=replace(seen.ledger, recoveries=(lost,))))
    rows = json.loads(run_orch("doctor", RUN, "--json").stdout)
    assert [row["unfit"] for row in rows] == [None, "its best link gives little"]


def test_an_unfit_node_that_never_told_anything_is_listed_with_the_reason_of_the_ledger(run_orch: Orch) -> None:
    seen, why = told(), {"i-1": "it stopped answering"}
    lost = Recovery(1, "lost", "m", {"i-0": 0}, (), 1, 0, graceful=False, trained=False, size=2, unfit=why)
    ledger = replace(seen.ledger, generation=2, recoveries=(lost,))
    first = replace(seen.facts.nodes["i-0"].beacon, generation=2)  # type: ignore[type-var]
    heard = {"i-0": replace(seen.facts.nodes["i-0"], beacon=first), "i-1": Node(("ssh-ed25519 AAAA",))}
    run_orch.cloud.add(replace(seen, ledger=ledger, facts=replace(seen.facts, nodes=heard)))
    rows = json.loads(run_orch("doctor", RUN, "--json").stdout)
    assert [(row["instance_id"], row["rank"], row["generation"], row["unfit"]) for row in rows] == [
        ("i-1", 1, 1, "it stopped answering"),
        ("i-0", 0, 2, None),
    ]
    assert "unfit: it stopped answering" in run_orch("doctor", RUN).stdout


def test_the_kept_report_of_a_run_tells_both(run_orch: Orch) -> None:
    run_orch.home.remember(CachedRun(RUN, "sandbox", "tiny", "2026-11-19T12:00:00Z"))
    run_orch.home.save_report(told().report())
    run_orch.cloud.up = []
    assert json.loads(run_orch("status", RUN, "--timing", "--json").stdout)[0]["stages"]["boot"] == 30.0
    assert json.loads(run_orch("doctor", RUN, "--json").stdout)[0]["links"] == {"1": 2500000000}
