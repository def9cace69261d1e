"""The outline of a tar lists as the tar does, to the place of every image, and holds little else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.agent import gathering, tars
from tests.agent.agent_world import FolderStore
from tests.trainer.pictures import folders
from tests.trainer.test_trainer_sources import one_tar, tars_of_tars, two_tars
from trainer.data import sources


def ignored(_: str) -> None:
    pass


@pytest.mark.parametrize("make", [one_tar, two_tars, tars_of_tars])
@pytest.mark.parametrize("block", [700, 2**20])
def test_the_outline_of_a_tar_lists_as_the_tar_does(
    tmp_path: Path, make: object, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (gathering, tars):
        monkeypatch.setattr(module, "RANGE", block)
    store = FolderStore(tmp_path / "s3")
    tree = folders(tmp_path / "tree", 12, 6)
    (tree / "train/n01" / ("long-" * 30 + ".JPEG")).write_bytes(b"0" * 5000)  # a name that needs a header of its own
    (tmp_path / "s3/set").mkdir(parents=True)
    made = make(tree, tmp_path / "s3/set")  # type: ignore[operator]
    root = tmp_path / "root"
    root.mkdir()
    for tar in (tmp_path / "s3/set").glob("*.tar"):
        tars.outline(store, f"set/{tar.name}", tar.stat().st_size, root / tar.name, ignored)
    labels = tmp_path / "s3/set/labels"
    given = labels if labels.is_file() else None
    whole = sources.open_source(made, given)
    seen = sources.open_source(root / made.name if made.is_file() else root, given)
    assert len(whole) == 19
    for split, images in whole.splits.items():
        assert [image._replace(file="") for image in seen.splits[split]] == [i._replace(file="") for i in images]


def test_of_a_large_tar_little_is_kept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "s3")
    tree = tmp_path / "tree"
    for number in range(4):
        place = tree / ("train" if number else "val") / "n00" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.urandom(2**20))
    (tmp_path / "s3/set").mkdir(parents=True)
    tar = one_tar(tree, tmp_path / "s3/set")
    tars.outline(store, f"set/{tar.name}", tar.stat().st_size, tmp_path / "outline", ignored)
    status = (tmp_path / "outline").stat()
    assert status.st_size == tar.stat().st_size > 2**22
    assert status.st_blocks * 512 < 2**18


def test_what_is_no_tar_ends_early(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "s3")
    store.put("set/train.tar", b"no tar at all" * 1000)
    tars.outline(store, "set/train.tar", 13_000, tmp_path / "outline", ignored)
    assert (tmp_path / "outline").stat().st_size == 13_000
