from __future__ import annotations

from pathlib import Path

import pytest

from trainer.data import pack
from trainer.errors import TrainerError


def make(folder: Path) -> None:
    with pack.Writer(folder) as writer:
        writer.add(b"first", 3, 40, 30)
        writer.add(b"", 1, 1, 1)
        writer.add(b"the third", 2, 20, 25)


def test_what_was_packed_comes_out_again(tmp_path: Path) -> None:
    make(tmp_path / "train")
    split = pack.open_split(tmp_path / "train")
    assert len(split) == 3
    assert [split.encoded(index) for index in range(3)] == [b"first", b"", b"the third"]
    assert split.labels.tolist() == [3, 1, 2]
    assert (split.widths.tolist(), split.heights.tolist()) == ([40, 1, 20], [30, 1, 25])


def test_a_split_whose_packing_failed_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), pack.Writer(tmp_path / "train") as writer:
        writer.add(b"first", 0, 1, 1)
        raise RuntimeError
    with pytest.raises(TrainerError, match="no packed images"):
        pack.open_split(tmp_path / "train")


def test_images_cut_short_are_noticed(tmp_path: Path) -> None:
    make(tmp_path / "train")
    images = tmp_path / "train" / pack.IMAGES
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(TrainerError, match="does not fit its index"):
        pack.open_split(tmp_path / "train")


@pytest.mark.parametrize("content", ["", "[1]", '{"name": "x"}', '{"name": "x", "classes": "ten"}'])
def test_a_folder_that_is_no_data_set_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / pack.DATASET).write_text(content)
    with pytest.raises(TrainerError, match="is not a packed data set") as caught:
        pack.describe(tmp_path)
    assert "\n" not in caught.value.message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="no such folder"):
        pack.describe(tmp_path / "nowhere")
