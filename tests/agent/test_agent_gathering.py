"""What lies side by side is fetched at once, and whoever uses S3 by himself says how much."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from orchestrator.agent import gathering
from orchestrator.agent.counted import Counted, Counts
from orchestrator.agent.fetch import Corrupt
from orchestrator.agent.gathering import GAP, digest_of, gather
from tests.agent.agent_world import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "s3")


def test_images_that_lie_side_by_side_are_fetched_at_once(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "RANGE", 4000)
    body = random.Random(1).randbytes(GAP + 9000)  # noqa: S311 - bytes to look at
    store.put("set/train.tar", body)
    store.put("set/val/a.jpg", b"alone")
    tar = [("n1", f"{at}.jpg", "train.tar", at, size) for at, size in ((1512, 700), (0, 1000), (2900, 0), (3000, 2000))]
    far = ("n1", "far.jpg", "train.tar", 5001 + GAP, 999)
    images = [*tar, ("n1", "a.jpg", "val/a.jpg", 0, 5), far]
    counts = Counts(tmp_path / "counts")
    gather(Counted(store, counts), "set/", images, tmp_path / "images")
    whole = {"train.tar": body, "val/a.jpg": b"alone"}
    assert (tmp_path / "images").read_bytes() == b"".join(whole[name][at : at + n] for _, _, name, at, n in images)
    assert counts.keep()["s3_gets"] == 4, "three ranges of the tar, of which none is larger than RANGE, and a file"
    with pytest.raises(Corrupt, match=r"set/train\.tar gave \d+ bytes where it had 9999"):
        gather(store, "set/", [("n1", "x", "train.tar", GAP, 9999)], tmp_path / "images")


def test_counts_go_on_when_a_script_starts_again(tmp_path: Path, store: FolderStore) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    for _ in range(2):
        counts = Counts(tmp_path / "counts")
        counted = Counted(store, counts)
        counted.put("a", b"12345")
        counted.upload_file(tmp_path / "file", "b")
        assert counted.get("a") == b"12345"
        assert digest_of(counted, [("a", 5), ("b", 100)], lambda _: None, lambda _: None)
        assert [item.key for item in counted.list("")] == ["a", "b"]
        counted.download_file("b", tmp_path / "again")
        counts.keep()
    assert json.loads((tmp_path / "counts").read_text()) == {"s3_gets": 8, "s3_puts": 10, "s3_bytes": 210}
