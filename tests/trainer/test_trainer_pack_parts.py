"""A packing in parts, each from nothing but the bytes of its images, is put together to what one machine packs."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.datasets.noted import contents
from tests.trainer.pictures import folders
from trainer.cli import main
from trainer.data import parts

OPTIONS = ("--sizes", "24,30", "--name", "photos")


def listing(root: Path, file: Path) -> Path:
    lines = [[path.relative_to(root).as_posix(), path.stat().st_size] for path in root.rglob("*") if path.is_file()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def pack_all(source: Path, work: Path) -> None:
    """Pack every part, the last first, given what its images are and nothing else."""
    for number in reversed(range(len(json.loads((work / "plan.json").read_text())["parts"]))):
        images = json.loads((work / f"parts/{number:05}.json").read_text())
        body = b"".join((source / file).read_bytes()[at : at + size] for _, _, file, at, size in images)
        (work / "images").write_bytes(body)
        assert main(["parts", "pack", str(work), str(number), str(work / "images"), "--processes", "1"]) == 0


def joined(work: Path) -> dict[str, bytes]:
    """Return all files of the data set, the images of the parts one after the other."""
    assert main(["parts", "join", str(work)]) == 0
    files = contents(work / "joined")
    for part in sorted((work / "packed").iterdir()):
        for name, body in contents(part).items():
            files[name] = files.get(name, b"") + body
    return files


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "FEWEST", 4)


def test_parts_are_put_together_to_the_same_data_set_to_the_byte(tmp_path: Path) -> None:
    source, work = folders(tmp_path / "source", 25, 9), tmp_path / "work"
    (source / "train/n01/train_0010.JPEG").write_bytes(b"corrupt")
    (source / "val/n02/val_0002.JPEG").write_bytes(b"corrupt")
    (source / "train/n01/notes.txt").write_text("no image")
    with tarfile.open(source / "train.tar", "w") as archive:
        archive.add(source / "train", "train")
    (source / "train").rename(tmp_path / "away")
    assert main(["pack", str(source), str(tmp_path / "whole"), *OPTIONS]) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "train.tar").symlink_to(source / "train.tar")
    files = listing(source, tmp_path / "listing")
    assert main(["parts", "plan", str(elsewhere), str(work), "--listing", str(files), *OPTIONS]) == 0
    assert len(list((work / "parts").iterdir())) == 3 + 1
    pack_all(source, work)
    made, whole = joined(work), contents(tmp_path / "whole")
    about = {name: json.loads(files.pop("dataset.json")) for name, files in (("made", made), ("whole", whole))}
    assert about["made"].pop("source") == "packed from elsewhere"
    assert about["whole"].pop("source") == "packed from source"
    assert about["made"] == about["whole"]
    assert made == whole


def test_corrupt_images_are_counted_over_all_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, work = folders(tmp_path / "source", 25, 9), tmp_path / "work"
    for number in range(4):  # in three parts
        (source / f"train/n{number % 3:02}/train_{number:04}.JPEG").write_bytes(b"corrupt")
    files = listing(source, tmp_path / "listing")
    (tmp_path / "empty").mkdir()
    assert main(["parts", "plan", str(tmp_path / "empty"), str(work), "--listing", str(files), *OPTIONS]) == 0
    assert main(["parts", "join", str(work)]) == 2
    assert "4 parts not packed yet, 0 first" in capsys.readouterr().err
    with pytest.raises(AssertionError):
        pack_all(source, work)
    assert "4 of 34 images cannot be decoded, more than 0.10%: train/n00/" in capsys.readouterr().err
