"""`orch dawnbench` writes what DAWNBench's own checks accept, and refuses what is no entry in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from orchestrator.core.ledger import Verdict
from tests.cli.fake_clouds import Orch
from tests.report.dawnbench_rules import faults_of
from tests.report.dawnbench_runs import THROUGH, aws_run, evaluation, start
from tests.report.views import ended

ME = ("--author", "Ada Lovelace", "--email", "ada@example.org")
CIFAR = (
    start(0.0, dataset="cifar10"),
    *(evaluation(60.0 * epoch, epoch, 99.9, top1=93.0 + epoch, images=10_000) for epoch in (1, 2)),
)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No name and address in any configuration of git."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def enter(run_orch: Orch, lines: Sequence[Any], *arguments: str, sandbox: bool = False) -> Result:
    run = ended(Verdict("finished", "all 2 nodes finished")) if sandbox else aws_run()
    run_orch.cloud.up = ["aws", "sandbox"]
    run_orch.cloud.add(replace(run, history=tuple(lines)), cloud="sandbox" if sandbox else "aws")
    return run_orch("dawnbench", *arguments)


def test_an_entry_passes_the_checks_of_the_benchmark(run_orch: Orch, tmp_path: Path) -> None:
    result = enter(run_orch, THROUGH, *ME, "--out", "here")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "here" / "ImageNet" / "train"
    assert sorted(file.suffix for file in folder.iterdir()) == [".json", ".tsv"]
    assert faults_of(next(folder.glob("*.tsv"))) == []
    assert "ImageNet: 93.00% top-5 after epoch 3: 18m00s" in result.stdout
    assert "cost by the rules: $14.69 at $48.96 an hour (2 x p3.16xlarge at $24.480000: test" in result.stdout
    assert "not an eligible entry" not in result.stdout
    record = json.loads(next(folder.glob("*.json")).read_text())
    assert record["logFilename"] == "s3://orch-1-us-east-1/runs/tiny-20261120-120000-abcd/metrics.jsonl"
    assert record["timestamp"] == "2026-11-20"


def test_cifar10_goes_by_top_1_and_lies_in_its_own_folder(run_orch: Orch, tmp_path: Path) -> None:
    result = enter(run_orch, CIFAR, *ME)
    assert result.exit_code == 0, result.output
    (tsv,) = (tmp_path / "CIFAR10" / "train").glob("*.tsv")
    assert faults_of(tsv) == []
    assert "CIFAR10: 94.00% top-1 after epoch 1: 1m00s" in result.stdout
    assert "usedBlacklist" not in json.loads(tsv.with_suffix(".json").read_text())


def test_below_the_threshold_the_files_are_written_and_the_reason_is_one_line(run_orch: Orch, tmp_path: Path) -> None:
    result = enter(run_orch, THROUGH[:5], *ME)
    assert result.exit_code == 0, result.output
    said = [line for line in result.stdout.splitlines() if "eligible" in line]
    assert said == ["not an eligible entry: the best top-5 is 92.998% after epoch 2, and 93% is needed"]
    (tsv,) = (tmp_path / "ImageNet" / "train").glob("*.tsv")
    assert faults_of(tsv) == ["below the threshold"]


def test_json_is_the_documented_value_and_nothing_else(run_orch: Orch) -> None:
    value = json.loads(enter(run_orch, THROUGH, *ME, "--json", "--ignore-eval").stdout)
    assert value["reached"]["hours"] == pytest.approx((1080 - 62) / 3600)
    assert (value["cost_per_hour_usd"], value["ignored_seconds"]) == ("48.960000", 62)
    assert value["cost_usd"] == f"{48.96 * 1018 / 3600:.6f}"
    documented = (Path(__file__).parents[2] / "docs" / "commands.md").read_text().partition("## `orch dawnbench`")[2]
    assert all(f'"{name}"' in documented.partition("\n## ")[0] for name in value)


def test_what_is_missing_is_told_at_once_and_nothing_is_written(run_orch: Orch, tmp_path: Path) -> None:
    result = enter(run_orch, (start(0.0, dataset="digits", run={}), evaluation(5.0, 1, 95.0)))
    assert result.exit_code == 2
    for what in ("its data set is 'digits'", "--author NAME", "--email ADDRESS", "--model NAME"):
        assert what in result.stderr
    assert list(tmp_path.glob("*/train")) == []


@pytest.mark.parametrize("lines", [(), THROUGH[:2], (evaluation(5.0, 1, 95.0),)])
def test_a_run_without_evaluations_is_refused_in_one_line(run_orch: Orch, lines: Sequence[Any]) -> None:
    result = enter(run_orch, lines, *ME)
    assert result.exit_code == 2
    assert result.stderr.count("orch: ") == 1
    assert "the run has no evaluations" in result.stderr


def test_the_name_of_the_author_comes_from_git(run_orch: Orch, tmp_path: Path) -> None:
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Grace H\n\temail = grace@example.org\n")
    assert enter(run_orch, THROUGH).exit_code == 0
    (file,) = tmp_path.glob("ImageNet/train/grace-h_resnet50_2x-p3-16xlarge_pytorch.json")
    assert json.loads(file.read_text())["authorEmail"] == "grace@example.org"


def test_a_sandbox_run_is_written_on_demand_and_says_what_it_is(run_orch: Orch) -> None:
    lines = (start(0.0, dataset="digits"), evaluation(60.0, 1, 100.0, images=500))
    refused = enter(run_orch, lines, *ME, sandbox=True)
    assert (refused.exit_code, "--task imagenet" in refused.stderr) == (2, True)
    result = enter(run_orch, lines, *ME, "--task", "imagenet", sandbox=True)
    assert result.exit_code == 0
    (said,) = (line for line in result.stdout.splitlines() if "eligible" in line)
    assert "digits, not ImageNet; it was validated on 500 images" in said
    assert "sandbox" in said


def test_a_folder_that_cannot_be_written_is_bad_input(run_orch: Orch, tmp_path: Path) -> None:
    (tmp_path / "ImageNet").write_text("a file")
    assert enter(run_orch, THROUGH, *ME).exit_code == 2
