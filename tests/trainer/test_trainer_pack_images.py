from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image

from tests.trainer.pictures import encoded, folders, photo
from trainer import cli
from trainer.data import pack, packing, picture, shards, sources
from trainer.data.journal import Journal
from trainer.errors import BUSY, TrainerError

Pack = Callable[..., int]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folders(tmp_path / "source", 30, 12)


@pytest.fixture
def run(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    monkeypatch.setattr(shards, "SIZE", 7)

    def pack_it(*arguments: str, to: str = "packed", of: Path = source) -> int:
        return cli.main(["pack", str(of), str(tmp_path / to), "--sizes", "24,56", "--processes", "2", *arguments])

    return pack_it


def everything(root: Path) -> dict[str, bytes]:
    """Return all files of a data set by name."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def spoil(source: Path, *names: str) -> None:
    for name in names:
        path = source / name
        path.write_bytes(path.read_bytes()[:200])


def test_originals_stay_as_they_are_and_smaller_copies_lie_beside_them(run: Pack, source: Path, tmp_path: Path) -> None:
    assert run() == 0
    found = sources.open_source(source)
    for split, images in found.splits.items():
        packs = [pack.open_split(tmp_path / "packed" / folder / split) for folder in ("", "sz/24", "sz/56")]
        for index, image in enumerate(images):
            original, small, same = (packed.encoded(index) for packed in packs)
            assert original == same == image.read()  # no image has a short side above 56
            theirs, ours = picture.decode(original), picture.decode(small)
            assert min(ours.size) == 24 and max(ours.size) == max(theirs.size) * 24 // min(theirs.size)
            assert small == encoded(theirs.resize(ours.size, Image.Resampling.BILINEAR), quality=75)
            for packed, shape in zip(packs, (theirs.size, ours.size, theirs.size), strict=True):
                assert (packed.widths[index], packed.heights[index]) == shape
                assert found.classes[packed.labels[index]] == image.class_name
                assert packed.name(index) == f"{split} image {index} ({image.path})"


def test_the_data_set_says_what_it_holds_and_how_far_it_is_in_json(
    run: Pack, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--name", "mine", "--quality", "90", "--json") == 0
    first, *shards, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (first, last) == ({"say": f"listing {source}"}, {"say": f"{tmp_path / 'packed'} is ready"})
    assert [line["images"] for line in shards] == [7, 14, 21, 28, 30, 37, 42]
    assert {(line["of"], line["corrupt"]) for line in shards} == {(42, 0)}
    about = pack.describe(tmp_path / "packed")
    assert (about["name"], about["classes"], about["class_names"]) == ("mine", 3, ["n00", "n01", "n02"])
    assert (about["train"], about["validation"], about["corrupt"]) == (30, 12, 0)
    assert (about["packed"]["sizes"], about["packed"]["quality"]) == ([24, 56], 90)
    assert pack.is_complete(tmp_path / "packed")


def test_neither_processes_nor_shards_nor_the_layout_change_a_byte(
    run: Pack, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run() == 0
    with tarfile.open(tmp_path / "source.tar", "w") as archive:
        archive.add(source, "some")
    monkeypatch.setattr(shards, "SIZE", 256)
    assert run("--processes", "1", "--name", "source", to="other", of=tmp_path / "source.tar") == 0
    first, second = everything(tmp_path / "packed"), everything(tmp_path / "other")
    texts = [files.pop(pack.DATASET).decode().replace("source.tar", "source") for files in (first, second)]
    assert texts[0] == texts[1]
    assert first == second


def test_a_second_time_nothing_is_done(run: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    before = (tmp_path / "packed/train" / pack.IMAGES).stat().st_mtime_ns
    assert run() == 0
    assert (tmp_path / "packed/train" / pack.IMAGES).stat().st_mtime_ns == before
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / 'packed'} is there already"


def test_corrupt_images_are_named_and_left_out_of_all_sizes_alike(
    run: Pack, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(source, "train/n00/train_0003.JPEG", "train/n02/train_0029.JPEG", "val/n01/val_0004.JPEG")
    assert run() == 0
    said = capsys.readouterr().out
    for name in ("train/n00/train_0003.JPEG", "train/n02/train_0029.JPEG", "validation/n01/val_0004.JPEG"):
        assert f"left out: {name}: " in said
        assert f"{name}: " in (tmp_path / "packed" / packing.CORRUPT).read_text()
    about = pack.describe(tmp_path / "packed")
    assert (about["train"], about["validation"], about["corrupt"]) == (28, 11, 3)
    names = {(tmp_path / "packed" / folder / "train" / pack.NAMES).read_text() for folder in ("", "sz/24", "sz/56")}
    assert len(names) == 1 and "0003" not in names.pop()
    small = pack.open_split(tmp_path / "packed/sz/24/train")
    assert [picture.decode(small.encoded(index)).size for index in range(28)] == [
        *zip(small.widths, small.heights, strict=True)
    ]


def test_too_many_corrupt_images_are_fatal_until_more_are_allowed(
    run: Pack, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(source, *(f"val/n02/val_{number:04}.JPEG" for number in (2, 5, 8, 11)))  # all of them in the last shard
    for _ in range(2):
        assert run() == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert "4 of 42 images cannot be decoded, more than 0.10%: validation/n02/val_0002.JPEG, " in error
        assert "--max-corrupt" in hint
    with pytest.raises(TrainerError, match="it has no dataset"):
        pack.describe(tmp_path / "packed")
    assert run("--max-corrupt", "0.1") == 0
    assert pack.describe(tmp_path / "packed")["corrupt"] == 4


def test_none_at_all_may_be_allowed(run: Pack, source: Path) -> None:
    spoil(source, "val/n00/val_0000.JPEG")
    assert run("--max-corrupt", "0") == 2
    assert run() == 0


@pytest.mark.parametrize("finished", [True, False])
def test_other_arguments_or_another_source_are_refused(
    run: Pack, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], finished: bool
) -> None:
    if finished:
        assert run() == 0
    else:
        spoil(source, "val/n00/val_0000.JPEG")
        assert run("--max-corrupt", "0") == 2
    capsys.readouterr()
    before = everything(tmp_path / "packed")
    assert run("--sizes", "24", "--quality", "80") == 2
    assert "is of another packing: sizes [24, 56], not [24]; quality 75, not 80" in capsys.readouterr().err
    (source / "train/n00/more.png").write_bytes(encoded(photo(1), "PNG"))
    assert run() == 2
    assert "is of another packing: train 30, not 31; source " in capsys.readouterr().err
    assert everything(tmp_path / "packed") == before


def test_something_else_in_its_place_is_left_alone(
    run: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/mine").write_text("kept")
    assert run() == 2
    assert "holds no such data set" in capsys.readouterr().err
    assert everything(tmp_path / "packed") == {"mine": b"kept"}


def test_packed_images_that_were_cut_short_are_not_gone_on_from(
    run: Pack, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(source, "val/n00/val_0000.JPEG")
    assert run("--max-corrupt", "0") == 2
    small = tmp_path / "packed/sz/24/train" / pack.IMAGES
    small.write_bytes(small.read_bytes()[:-1])
    assert run() == 2
    assert f"{small} was cut short" in capsys.readouterr().err


def test_a_process_that_is_killed_ends_it_in_one_line(
    run: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(picture, "copies", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert run() == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: a process that shrinks images was killed"
    assert "--processes" in hint
    assert run() == 0
    assert pack.is_complete(tmp_path / "packed")


def test_two_at_once_do_not_write_into_one_place(run: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other one is a process of its own: locks are between processes."""
    assert run("--max-corrupt", "0") == 0
    (tmp_path / "packed" / pack.DATASET).rename(tmp_path / "aside")
    done, begun = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with closing(Journal(tmp_path / "packed", {"some": "plan"})):
                os.write(begun[1], b"x")
                os.read(done[0], 1)
        finally:
            os._exit(0)
    try:
        assert os.read(begun[0], 1) == b"x"
        capsys.readouterr()
        assert run() == BUSY
        assert f"another process is packing into {tmp_path / 'packed'}" in capsys.readouterr().err
    finally:
        os.write(done[1], b"x")
        os.waitpid(pid, 0)
        for end in (*done, *begun):
            os.close(end)


def test_an_image_that_cannot_be_read_ends_it_in_one_line(source: Path, tmp_path: Path) -> None:
    found = sources.open_source(source)
    (source / "train/n01/train_0001.JPEG").rename(tmp_path / "aside")
    how = packing.How(name="x", sizes=(), quality=75, processes=1, max_corrupt=0)
    with pytest.raises(TrainerError, match=r"cannot read n01/train_0001.JPEG in .*: No such file or dir") as caught:
        packing.run(found, tmp_path / "packed", how, StringIO())
    assert len(caught.value.text().splitlines()) == 2
    (tmp_path / "aside").rename(source / "train/n01/train_0001.JPEG")
    assert packing.run(found, tmp_path / "packed", how, StringIO())
