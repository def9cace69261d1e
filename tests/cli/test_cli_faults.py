"""What is wrong with a line, the file it names and this machine is told at once, and nothing is asked of a cloud."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli import context
from orchestrator.core.ledger import Verdict
from tests.cli.fake_clouds import Orch
from tests.core.worlds import spec
from tests.report.views import ended, running

FILE = """
name: tiny
resources: {instance_type: p3.16xlarge}
run: hostname
secrets: [WANDB_API_KEY]
workdir: nowhere
max_coast: 5
"""


@pytest.fixture
def orch(run_orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Orch:
    """`orch` beside a wrong file, without the secret that it names; a cloud that is opened is a failure."""

    def fail(*_: object) -> None:
        raise AssertionError("a cloud was opened")

    monkeypatch.setattr(context, "_open_aws", fail)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    Path("tiny.yaml").write_text(FILE)
    return run_orch


def details(said: str) -> list[str]:
    """Return the lines of details on stderr."""
    return [line.removeprefix("  ") for line in said.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("command", ["launch", "plan"])
def test_flags_file_and_machine_are_told_together(orch: Orch, command: str) -> None:
    found = orch(command, "tiny.yaml", "--cloud", "mars", "--bogus", "--max-cost", "much")
    assert found.exit_code == 2
    assert found.stderr.startswith("orch: nothing was done: 6 faults\n")
    assert [line.partition(" (")[0].partition(";")[0] for line in details(found.stderr)] == [
        "No such option '--bogus'",
        "Invalid value for '--cloud': 'mars' is not one of 'aws', 'sandbox'",
        "secrets: WANDB_API_KEY is not set in your environment",
        f"workdir: {Path.cwd() / 'nowhere'} is not a folder",
        "max_coast: unknown key",
        "max_cost: must be an amount of dollars such as 60 or 12.50, not 'much'",
    ]
    assert f"`orch {command} --help`" in found.stderr


def test_a_fault_of_the_file_and_a_missing_secret_are_told_together(orch: Orch) -> None:
    found = orch("launch", "tiny.yaml", "--cloud", "aws")
    assert "tiny.yaml: 3 faults" in found.stderr
    assert "secrets: WANDB_API_KEY is not set in your environment (line 5)" in details(found.stderr)
    Path("tiny.yaml").write_text(FILE.replace("max_coast: 5", "").replace("workdir: nowhere", "").replace("_KEY", "-"))
    assert len(details(orch("launch", "tiny.yaml", "--cloud", "aws").stderr)) == 1, "a name that is none is told once"


def test_one_fault_is_told_as_ever(orch: Orch) -> None:
    found = orch("status", "--limit", "-1")
    assert found.stderr.splitlines()[0] == "orch: Invalid value for '--limit': -1 is not in the range x>=0"
    assert orch("launch", "--help").stdout.startswith("Usage: ")


def test_words_after_an_option_that_is_not_known_are_not_taken_for_a_file(orch: Orch) -> None:
    found = orch("launch", "--colour", "red", "tiny.yaml", "--cloud", "mars")
    assert [line[:20] for line in details(found.stderr)] == ["No such option '--co", "Invalid value for '-"]


@pytest.mark.parametrize("arguments", [("sandbox", "fault", "--count", "x"), ("exec", "--node", "x", "--cloud", "y")])
def test_every_command_tells_all(orch: Orch, arguments: tuple[str, ...]) -> None:
    assert len(details(orch(*arguments).stderr)) >= 2


def test_a_simulation_tells_words_files_and_experiment_together(orch: Orch) -> None:
    found = orch("simulate", "tiny.yaml", "--trace", "none.json", "--efficiency", "x", "--replays", "0", "--boot", "no")
    told = "\n".join(details(found.stderr))
    for fault in (
        "Invalid value for '--efficiency'",
        "Invalid value for '--replays'",
        "max_coast: unknown key",
        "secrets: WANDB_API_KEY",
        "none.json: cannot be read",
        "--boot: 'no' is not a duration",
    ):
        assert fault in told
    # With prices no plan is made, and nothing is needed of this machine.
    priced = orch("simulate", "tiny.yaml", "--trace", "none.json", "--spot-price", "1", "--on-demand-price", "x").stderr
    assert "max_coast: unknown key" in priced
    assert "none.json: cannot be read" in priced
    assert "--on-demand-price must be" in priced
    assert "WANDB" not in priced
    missing = orch("simulate", "--replays", "0").stderr
    assert [line[:14] for line in details(missing)] == ["Missing argume", "Missing option", "Invalid value "]


def test_an_experiment_that_does_not_exist_says_what_there_is(orch: Orch) -> None:
    for rest in (("--trace", "none.json"), ("--trace", "none.json", "--replays", "0")):
        assert (
            "there is no experiment 'imagenet': did you mean imagenet18?" in orch("simulate", "imagenet", *rest).stderr
        )
    assert "hint: did you mean imagenet18?" in orch("plan", "imagenet", "--cloud", "aws").stderr


def test_resume_and_extend_tell_caps_and_secrets_together(run_orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    asked = spec(2, secrets=["WANDB_API_KEY"], max_cost="0.80")
    run_orch.cloud.add(replace(ended(Verdict("capped", "near")), spec=asked))
    found = details(run_orch("resume", "--max-duration", "1s").stderr)
    assert [line.partition(":")[0] for line in found] == ["secrets", "max_cost", "max_duration"]
    run_orch.cloud.add(replace(running(scheduler=None), spec=asked))
    found = details(run_orch("extend", "--max-duration", "1s").stderr)
    assert [line.partition(":")[0] for line in found] == ["max_duration", "secrets"]
