"""A training begins with the images it needs first, waits for the others while they arrive, and sees the same ones."""

from __future__ import annotations

import fcntl
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.two_sizes import FIRST
from tests.trainer.zygote import Zygote, logs, progress
from trainer.data import pack

FILES = [name for split in pack.SPLITS for name in pack.files("", split)]


@pytest.fixture(scope="module")
def two_sizes(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set with its images in a second place, where the recipe looks for the first ones."""
    root = tmp_path_factory.mktemp("two") / "stripes"
    shutil.copytree(stripes, root)
    for split in pack.SPLITS:
        shutil.copytree(stripes / split, root / FIRST / split)
    return root


@pytest.fixture(scope="module")
def whole(zygote: Zygote, two_sizes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that had all images from the beginning."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(zygote, folder, two_sizes) == [0], logs(folder)
    assert not progress(folder, "waiting")
    return folder


def train(zygote: Zygote, folder: Path, root: Path, *more: str) -> list[int]:
    arguments = ["imagenet18", "--data", str(root), "--scale", "sandbox", "--log-every", "1", "--epochs", "3", *more]
    return zygote.train(folder, 1, *arguments, target="tests.trainer.two_sizes:main")


def waits(folder: Path) -> bool:
    return (folder / "0/progress.jsonl").exists() and '"waiting"' in (folder / "0/progress.jsonl").read_text()


def hold_back(root: Path, kept: Path) -> Path:
    """Take the second size away, as it is while it arrives; return where it is announced."""
    for name in FILES:
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).rename(kept / name)
    announced = root / ".arriving"
    announced.write_text("".join(f"{name}\n" for name in FILES))
    return announced


@contextmanager
def once_it_waits(folder: Path, announced: Path, act: Callable[[], Any]) -> Iterator[None]:
    """Be what brings the data, until the training in `folder` waits for them; then `act`."""

    def bring() -> None:
        with announced.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            while not waits(folder) and not done.is_set():
                time.sleep(0.02)
            act()

    done = threading.Event()
    bringing = threading.Thread(target=bring)
    bringing.start()
    try:
        yield
    finally:
        done.set()
        bringing.join()


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in progress(folder) if "event" not in line]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_it_trains_on_what_is_there_and_then_on_the_same_images_as_ever(
    zygote: Zygote, two_sizes: Path, whole: Path, tmp_path: Path, workers: str
) -> None:
    late, root = tmp_path / "late", tmp_path / "arrives"
    shutil.copytree(two_sizes, root)
    announced = hold_back(root, tmp_path / "kept")

    def arrive() -> None:
        for name in FILES:
            (tmp_path / "kept" / name).rename(root / name)
        announced.unlink()

    with once_it_waits(late, announced, arrive):
        code = train(zygote, late, root, "--workers", workers)
    assert code == [0], logs(late)
    (waiting,), (arrived,) = progress(late, "waiting"), progress(late, "arrived")
    assert waiting["file"] == "train/index.npz"
    assert waiting["step"] > 0, "it trained before"
    assert arrived["seconds"] > 0
    assert losses(late) == losses(whole)


def test_it_ends_in_one_line_when_what_it_needs_next_will_not_come(
    zygote: Zygote, two_sizes: Path, tmp_path: Path
) -> None:
    folder, root = tmp_path / "late", tmp_path / "arrives"
    shutil.copytree(two_sizes, root)
    announced = hold_back(root, tmp_path / "kept")

    def fail() -> None:
        (root / "new").write_text("failed: a.bin is damaged\n")
        (root / "new").rename(announced)

    with once_it_waits(folder, announced, fail):
        code = train(zygote, folder, root)
    assert code == [1], logs(folder)
    assert f"error: {root}/train/index.npz will not come: a.bin is damaged" in logs(folder)
    assert "Traceback" not in logs(folder)
