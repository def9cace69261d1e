"""Reading a checkpoint without boto3: what comes, what is refused, and that the real client is there for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.quick import MOST_BYTES, QuickStore, suits
from orchestrator.agent.restore import restore_step
from orchestrator.agent.stage import stage
from orchestrator.core.ids import Keys
from orchestrator.core.manifest import File, Manifest
from orchestrator.errors import NotFound, Unreachable
from tests.agent.agent_world import RUN, FolderStore, node_config
from tests.agent.test_agent_stage import save
from tests.node.fake_aws import BUCKET, Metadata, s3_client, serve_metadata, serve_s3

KEYS = Keys(RUN)


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, Any]]:
    with serve_s3() as endpoint:
        yield endpoint, s3_client(endpoint)


@pytest.fixture
def quick(s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[QuickStore]:
    with serve_metadata() as metadata:
        yield made(metadata, s3[0], monkeypatch, tmp_path)


def made(metadata: Metadata, endpoint: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> QuickStore:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("HOME", str(home))
    return QuickStore(RUN, BUCKET, "us-east-1")


def upload(client: Any, local: FolderStore) -> None:
    for key in local.keys(KEYS.checkpoints):
        client.put_object(Bucket=BUCKET, Key=key, Body=local.get(key))


def test_a_checkpoint_comes_whole_and_what_is_not_there_is_said(
    s3: tuple[str, Any], quick: QuickStore, tmp_path: Path
) -> None:
    local = FolderStore(tmp_path / "s3")
    save(local, 20, tmp_path / "made")
    upload(s3[1], local)
    config = node_config(tmp_path, generation=2, restore_step=20)
    stage(config, lambda *_: pytest.fail("boto3 was not needed"), quick)
    assert (config.checkpoint_folder / "20" / "model").read_bytes() == b"weights 20"
    with pytest.raises(NotFound):
        quick.get(KEYS.manifest(21))


def test_whatever_goes_wrong_the_real_client_is_asked(quick: QuickStore, tmp_path: Path) -> None:
    local = FolderStore(tmp_path / "s3")
    save(local, 30, tmp_path / "made")
    config = node_config(tmp_path, generation=2, restore_step=30)
    stage(config, lambda *_: local, quick)
    assert (config.checkpoint_folder / "30" / "model").read_bytes() == b"weights 30"


def test_a_refusal_is_an_error_of_this_project(quick: QuickStore, monkeypatch: pytest.MonkeyPatch) -> None:
    other = QuickStore(RUN, "no-such-bucket-0", "us-east-1")
    with pytest.raises(NotFound):
        other.get("x")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises((Unreachable, OSError)):
        QuickStore(RUN, BUCKET, "us-east-1").get("x")


def test_what_is_large_or_has_a_name_to_escape_is_left_to_the_real_client(tmp_path: Path) -> None:
    plain = Manifest(1, (File("model/a-1.pt", 10, "0" * 64),))
    assert suits(plain)
    assert not suits(replace(plain, files=(File("model", MOST_BYTES + 1, "0" * 64),)))
    assert not suits(replace(plain, files=(File("my model", 10, "0" * 64),)))
    local = FolderStore(tmp_path / "s3")
    save(local, 20, tmp_path / "made")
    (tmp_path / "here").mkdir()
    here = tmp_path / "here"
    assert restore_step(local, KEYS, here, 20, lambda _: False, alone=True) == "it is left to another client"
    assert list((tmp_path / "here").iterdir()) == []
