"""Images are read into the page cache in order, once for each machine, and only what fits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from trainer.data import warm
from trainer.recipes.imagenet18 import SIXTEEN
from trainer.source import Packed

SIZE = 3 * warm.CHUNK + 5


def cold(path: Path) -> Path:
    """Write a file that is on the disk and not in memory. Skips where the file system has no disk behind it."""
    with path.open("wb") as file:
        file.write(os.urandom(SIZE))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory(path) > 0:
        pytest.skip("files of this file system always lie in memory")
    return path


def in_memory(path: Path) -> float:
    """The share of some places in the file that can be read without waiting for a disk."""
    places = range(0, SIZE, 1 << 20)
    found = 0
    with path.open("rb") as file:
        for place in places:
            try:
                found += os.preadv(file.fileno(), [bytearray(1)], place, os.RWF_NOWAIT)
            except BlockingIOError:
                pass
            except OSError as error:
                pytest.skip(f"this file system does not say what is in memory: {error}")
    return found / len(places)


def test_files_are_in_memory_afterwards(tmp_path: Path) -> None:
    files = [cold(tmp_path / "one"), cold(tmp_path / "two")]
    warm.start(files).join()
    assert [in_memory(file) for file in files] == [1, 1]


def test_what_does_not_fit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("one", "two", "three")]
    for file, size in zip(files, (10, 1000, 10), strict=True):
        file.write_bytes(bytes(size))
    monkeypatch.setattr(warm, "available", lambda: 100)
    assert warm.read(files) == 10  # what comes after the large one would be needed later than it


def test_a_file_that_is_gone_is_left_to_whoever_needs_it(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"12345")
    assert warm.read([tmp_path / "gone", tmp_path / "there"]) == 5


def test_one_rank_of_a_machine_reads_all_that_the_phases_need(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("sz/160", "sz/352", "."):
        shutil.copytree(stripes, tmp_path / folder, dirs_exist_ok=True)
    asked: list[Path] = []
    monkeypatch.setattr(warm, "start", asked.extend)
    for warms in (False, True):
        Packed(tmp_path, SIXTEEN, torch.device("cpu"), seed=0, workers=0, max_corrupt=0, warms=warms)
    names = [str(path.relative_to(tmp_path)) for path in asked]
    assert names == [
        "sz/160/train/images.bin", "sz/160/validation/images.bin", "train/images.bin", "validation/images.bin",
    ]  # fmt: skip


def test_memory_for_files_is_known_and_less_than_there_is() -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < warm.available() <= whole
