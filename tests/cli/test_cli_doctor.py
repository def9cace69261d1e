"""`doctor`: what is lacking, with what to do about it, and the policies."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import OrchError
from tests.cli.fake_clouds import Handle, Orch


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the account says, and whether this machine can have a sandbox."""
    says: dict[str, Any] = {"quota": 256, "tools": None}

    def find(environ: dict[str, str]) -> None:
        if says["tools"] is not None:
            raise says["tools"]

    monkeypatch.setattr("orchestrator.sandbox.tools.find", find)
    monkeypatch.setattr("orchestrator.aws.account.bucket_exists", lambda session, name: False)
    monkeypatch.setattr(
        "orchestrator.aws.quotas.Quotas",
        lambda session: SimpleNamespace(vcpus=lambda codes: dict.fromkeys(codes, says["quota"])),
    )
    monkeypatch.setattr(Handle, "caller", lambda self: "arn:aws:iam::1:user/me", raising=False)
    monkeypatch.setattr(Handle, "account", lambda self: "1", raising=False)
    return says


def states(run_orch: Orch, *arguments: str) -> dict[str, str]:
    return {check["name"]: check["state"] for check in json.loads(run_orch("doctor", "--json", *arguments).stdout)}


def test_doctor_is_content_when_all_is_there(run_orch: Orch, account: dict[str, Any]) -> None:
    run_orch.cloud.up = ["aws", "sandbox"]
    result = run_orch("doctor")
    assert result.exit_code == 0, result.output
    assert set(states(run_orch).values()) == {"ok"}
    assert "orch-1-us-east-1, made on first use" in result.stdout


def test_doctor_needs_one_cloud_not_both(run_orch: Orch, account: dict[str, Any]) -> None:
    run_orch.cloud.up = []
    assert states(run_orch)["credentials"] == "warn"
    assert run_orch("doctor").exit_code == 0
    account["tools"] = OrchError("the sandbox needs sshd", "apt-get install openssh-server")
    assert run_orch("doctor").exit_code == 4
    result = run_orch("doctor", "--cloud", "aws")
    assert result.exit_code == 4
    assert "FAIL  credentials" in result.stdout
    assert "`aws configure`" in result.stdout


def test_doctor_warns_of_a_quota_of_nothing(run_orch: Orch, account: dict[str, Any]) -> None:
    run_orch.cloud.up = ["aws"]
    account["quota"] = 0
    assert states(run_orch)["quota"] == "warn"


def test_doctor_misses_a_program(run_orch: Orch, account: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    result = run_orch("doctor")
    assert result.exit_code == 2
    assert "FAIL  tmux" in result.stdout


def test_doctor_prints_the_policies_with_or_without_credentials(run_orch: Orch, account: dict[str, Any]) -> None:
    run_orch.cloud.up = ["aws"]
    value = json.loads(run_orch("doctor", "--policy").stdout)
    assert set(value) == {"operator", "node", "node_trust", "bucket"}
    assert "orch-1-us-east-1" in json.dumps(value["node"])
    run_orch.cloud.up = []
    assert "orch-ACCOUNT-REGION" in run_orch("doctor", "--policy").stdout


def test_doctor_prints_what_other_buckets_with_data_need(run_orch: Orch, account: dict[str, Any]) -> None:
    run_orch.cloud.up = ["aws"]
    value = json.loads(run_orch("doctor", "--policy", "--data-bucket", "theirs", "--data-bucket", "ours.2").stdout)
    operator = {item["Sid"]: item["Resource"] for item in value["operator"]["Statement"]}
    assert operator["ListS3"] == ["arn:aws:s3:::orch-1-us-east-1", "arn:aws:s3:::theirs", "arn:aws:s3:::ours.2"]
    assert operator["ReadData"] == ["arn:aws:s3:::theirs/*", "arn:aws:s3:::ours.2/*"]
    assert set(value["node_data"]) == {"orch-data-theirs", "orch-data-ours.2"}
    assert "arn:aws:s3:::theirs/*" in json.dumps(value["node_data"]["orch-data-theirs"])
    many = [word for number in range(12) for word in ("--data-bucket", f"{number:063}")]
    refused = run_orch("doctor", "--policy", *many)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "with 12 buckets of data the operator's policy has" in refused.stderr
    assert "the others in a second policy" in refused.stderr


def test_doctor_refuses_bad_names_of_buckets_all_at_once(run_orch: Orch, account: dict[str, Any]) -> None:
    wrong = ("s3://theirs/x", "A", "a..b", "fine", "fine")
    words = [word for name in wrong for word in ("--data-bucket", name)]
    refused = run_orch("doctor", *words)
    found = [line.strip().partition(": ") for line in refused.stderr.splitlines() if line.startswith("  ")]
    assert (refused.exit_code, [name for name, _, _ in found]) == (
        2,
        ["--data-bucket is of --policy"] + ["--data-bucket"] * 4,
    )
    for name, (_, _, fault) in zip(wrong, found[1:4], strict=False):
        assert fault.startswith("must be the name of a bucket") and f"not '{name}'" in fault
    assert found[4][2].startswith("fine is there twice")
    alone = run_orch("doctor", "--policy", "--data-bucket", "A")
    assert (alone.exit_code, "hint: it is the NAME of s3://NAME" in alone.stderr) == (2, True)


def test_doctor_refuses_a_run_with_the_policies(run_orch: Orch, account: dict[str, Any]) -> None:
    result = run_orch("doctor", "tiny", "--policy")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--policy is of the account, not of run tiny" in result.stderr
