from __future__ import annotations

from pathlib import Path

import numpy as np
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


def test_raw_images_come_out_as_pixels(tmp_path: Path) -> None:
    pixels = np.arange(5 * 4 * 6 * 3, dtype=np.uint8).reshape(5, 4, 6, 3)
    pack.write_raw(tmp_path / "train", pixels, np.arange(5))
    split = pack.open_split(tmp_path / "train")
    assert split.pixels is not None
    assert (split.pixels == pixels).all()
    assert (split.widths.tolist(), split.heights.tolist()) == ([6] * 5, [4] * 5)
    assert split.encoded(2) == pixels[2].tobytes()
    assert split.name(2) == "train image 2"


def test_images_are_named_as_they_were_called(tmp_path: Path) -> None:
    with pack.Writer(tmp_path / "train") as writer:
        for name in ("a/1.jpg", "a/two\nlines.jpg", "b/ü\udcff.jpg"):
            writer.add(b"x", 0, 1, 1, name)
    split = pack.open_split(tmp_path / "train")
    assert split.name(0) == "train image 0 (a/1.jpg)"
    assert split.name(1) == r"train image 1 (a/two\nlines.jpg)"
    assert split.name(2) == r"train image 2 (b/\xfc\udcff.jpg)"


def test_images_encoded_in_a_way_not_known_here_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "train")
    columns, _ = pack.read_index(tmp_path / "train")
    pack.write_index(tmp_path / "train", columns, encoding="wavelets")
    with pytest.raises(TrainerError, match="encoded as 'wavelets'"):
        pack.open_split(tmp_path / "train")


def test_a_data_set_is_whole_when_both_splits_hold_what_it_says(tmp_path: Path) -> None:
    for split in pack.SPLITS:
        make(tmp_path / split)
    assert not pack.is_complete(tmp_path)
    pack.write_about(tmp_path, {"name": "x", "classes": 4, "train": 3, "validation": 3})
    assert pack.is_complete(tmp_path)
    pack.write_about(tmp_path, {"name": "x", "classes": 4, "train": 3, "validation": 4})
    assert not pack.is_complete(tmp_path)
