from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.trainer.pictures import folders
from trainer.data import sources
from trainer.errors import TrainerError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return folders(tmp_path / "tree", 12, 6)


def tar(path: Path, folder: Path, name: str) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.add(folder, name)
    return path


def one_tar(tree: Path, to: Path) -> Path:
    return tar(to / "all.tar", tree, "some/where")


def two_tars(tree: Path, to: Path) -> Path:
    tar(to / "train.tar", tree / "train", ".")
    tar(to / "val.tar", tree / "val", "val")
    return to


def tars_of_tars(tree: Path, to: Path) -> Path:
    """As ImageNet is handed out."""
    with tarfile.open(to / "ILSVRC2012_img_train.tar", "w") as archive:
        for folder in sorted((tree / "train").iterdir(), reverse=True):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as files:
                for image in folder.iterdir():
                    files.add(image, image.name)
            entry = tarfile.TarInfo(f"{folder.name}.tar")
            entry.size = len(inner.getvalue())
            inner.seek(0)
            archive.addfile(entry, inner)
    tar(to / "ILSVRC2012_img_val.tar", flat(tree, to), ".")
    return to


def flat(tree: Path, to: Path) -> Path:
    """Return a folder of the validation images in no class; `to/labels` says which each has."""
    (to / "flat").mkdir()
    images = sorted((tree / "val").glob("*/*"), key=lambda image: image.name)
    for image in images:
        shutil.copy(image, to / "flat")
    (to / "labels").write_text("".join(f"{image.name} {image.parent.name}\n" for image in images))
    return to / "flat"


def flat_in_a_folder(tree: Path, to: Path) -> Path:
    (to / "set").mkdir()
    (to / "set/train").symlink_to(tree / "train")
    flat(tree, to).rename(to / "set/validation")
    return to / "set"


@pytest.mark.parametrize("layout", [one_tar, two_tars, tars_of_tars, flat_in_a_folder])
def test_the_same_images_are_found_however_they_are_laid_out(tree: Path, tmp_path: Path, layout: object) -> None:
    (tmp_path / "to").mkdir()
    assert callable(layout)
    root = layout(tree, tmp_path / "to")
    labels = tmp_path / "to/labels"
    plain, other = sources.open_source(tree), sources.open_source(root, labels if labels.exists() else None)
    assert other.classes == plain.classes == ("n00", "n01", "n02")
    assert len(other) == len(plain) == 18
    for split, found in plain.splits.items():
        assert [image.path for image in other.splits[split]] == [image.path for image in found]
        assert [image.read() for image in other.splits[split]] == [image.read() for image in found]
    assert other.digest() == plain.digest()


def test_images_come_by_class_and_name_and_nothing_else_is_one(tree: Path) -> None:
    for name in ("notes.txt", ".hidden.jpg", "._n.JPEG"):
        (tree / "train/n00" / name).write_text("x")
    os.mkfifo(tree / "train/n01/pipe.jpg")
    found = sources.open_source(tree).splits["train"]
    assert [image.path for image in found] == sorted(f"n{n % 3:02}/train_{n:04}.JPEG" for n in range(12))
    assert found[0].read() == (tree / "train/n00/train_0000.JPEG").read_bytes()


def test_another_image_makes_another_digest(tree: Path) -> None:
    before = sources.open_source(tree).digest()
    (tree / "val/n00/val_0000.JPEG").write_bytes(b"larger than it was" * 1000)
    assert sources.open_source(tree).digest() != before


def test_all_that_is_wrong_is_said_at_once_in_one_line(tree: Path) -> None:
    (tree / "val/n00").rename(tree / "val/dog")
    for name in "abcde":
        (tree / "train" / f"{name}.jpg").write_bytes(b"")
    with pytest.raises(TrainerError) as caught:
        sources.open_source(tree)
    assert caught.value.message == (
        f"{tree} cannot be packed: train images in no class: a.jpg, b.jpg, c.jpg and 2 more; "
        "classes of validation images that no training image has: dog"
    )
    assert "--val-labels" in caught.value.hint


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("val_0000.JPEG n00\n", "no line in .* for val_0001.JPEG, val_0002.JPEG, val_0003.JPEG and 2 more"),
        ("val_0000.JPEG\n", "says no `name class` in 'val_0000.JPEG'"),
        ("", "is empty"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tree: Path, tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "labels").write_text(lines)
    with pytest.raises(TrainerError, match=said):
        sources.open_source(tree, tmp_path / "labels")


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="no train images; no validation images"):
        sources.open_source(tmp_path)
    with pytest.raises(TrainerError, match="no such file or folder"):
        sources.open_source(tmp_path / "nowhere")


@pytest.mark.parametrize("mode", ["gz", "cut", "text"])
def test_what_is_no_whole_plain_tar_is_refused_in_one_line(tree: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "all.tar"
    with tarfile.open(path, "w:gz" if mode == "gz" else "w") as archive:
        archive.add(tree, "some")
    body = path.read_bytes()
    if mode != "gz":
        path.write_bytes(body[:20_000] if mode == "cut" else b"text, and long enough" * 100)
    with pytest.raises(TrainerError, match=r"all.tar cannot be read as a tar: ") as caught:
        sources.open_source(path)
    assert "\n" not in caught.value.message + caught.value.hint
