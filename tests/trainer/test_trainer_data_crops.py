from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.pictures import encoded, photo
from trainer.data import chance, crops
from trainer.data.damage import UndecodableError

COUNT = 2000
AT = np.arange(COUNT)


def sides(seed: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.random.default_rng(seed).integers(20, 60, COUNT, dtype=np.int32)


def test_random_boxes_lie_in_the_image_and_keep_their_area_and_aspect() -> None:
    heights, widths = sides(0), sides(1)
    boxes = crops.random_boxes(heights, widths, AT, min_scale=0.25, seed=0, epoch=0)
    top, left, rows, columns = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + rows <= heights).all() and (left + columns <= widths).all()
    aspects, scales = columns / rows, rows * columns / (heights * widths)
    assert 0.69 < aspects.min() < 0.8 and 1.25 < aspects.max() < 1.45  # 3:4 to 4:3, and rounding
    assert 0.2 < scales.min() < 0.3 and scales.max() > 0.85
    assert len(np.unique(boxes, axis=0)) > COUNT * 0.95


def test_random_boxes_are_as_likely_here_as_there() -> None:
    """A box of half the width of a square image starts anywhere in the rest of it."""
    size = np.full(COUNT, 200, dtype=np.int32)
    top, left, rows, columns = crops.random_boxes(size, size, AT, min_scale=0.08, seed=3, epoch=1).T
    for start, length in ((top, rows), (left, columns)):
        place = start[length < 180] / (200 - length[length < 180])
        for share in (0.1, 0.5, 0.9):
            assert abs(np.quantile(place, share) - share) < 0.05


def test_a_box_depends_on_seed_epoch_and_image_alone() -> None:
    heights, widths = sides(0), sides(1)
    boxes = crops.random_boxes(heights, widths, AT, min_scale=0.25, seed=2**70, epoch=4)
    some = AT[::-7]
    again = crops.random_boxes(heights[some], widths[some], some, min_scale=0.25, seed=2**70, epoch=4)
    assert (again == boxes[some]).all()
    for seed, epoch in ((2**70, 5), (0, 4)):
        other = crops.random_boxes(heights, widths, AT, min_scale=0.25, seed=seed, epoch=epoch)
        assert (other != boxes).any(axis=1).mean() > 0.95


def test_an_image_too_long_for_any_box_gives_its_middle() -> None:
    heights, widths = np.array([10, 200], dtype=np.int32), np.array([200, 10], dtype=np.int32)
    boxes = crops.random_boxes(heights, widths, np.array([0, 1]), min_scale=1.0, seed=0, epoch=0)
    assert boxes.tolist() == [[0, 93, 10, 13], [93, 0, 13, 10]]


def test_the_middle_of_a_wide_image_is_cut_left_and_right() -> None:
    heights, widths = np.array([40, 100, 40]), np.array([100, 40, 40])
    boxes = crops.middle_boxes(heights, widths, 20, 20, 20)
    assert boxes.tolist() == [[0, 30, 40, 40], [30, 0, 40, 40], [0, 0, 40, 40]]
    assert crops.middle_boxes(heights, widths, 16, 16, 20).tolist()[0] == [4, 34, 32, 32]


def test_shifts_take_every_value_equally_often() -> None:
    by = crops.shifts(0, 0, np.arange(9000), 4)
    for axis in by.T:
        assert np.bincount(axis, minlength=9).min() > 850 and axis.max() == 8
    assert abs(np.corrcoef(by.T) - np.eye(2)).max() < 0.05


def test_numbers_of_one_purpose_say_nothing_about_those_of_another() -> None:
    columns = [chance.uniform(0, epoch, AT, purpose, 1)[:, 0] for epoch in (0, 1) for purpose in (1, 2, 3)]
    assert abs(np.corrcoef(columns) - np.eye(6)).max() < 0.1


@pytest.mark.parametrize("padding", [1, 3, 9])
def test_shifted_images_are_cut_from_mirrored_padding(padding: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 10, 12, 3), dtype=np.uint8)
    by, mirrored = crops.shifts(1, 0, np.arange(20), padding), np.arange(20) % 2 == 0
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
    moved = crops.shift(images, by, padding, mirrored)
    for number, (down, right) in enumerate(by):
        cut = padded[number, down : down + 10, right : right + 12]
        assert (moved[number] == (cut[:, ::-1] if mirrored[number] else cut)).all()


def test_resizing_averages_over_all_pixels_that_fall_into_one() -> None:
    """As Pillow's bilinear does, which is what the published trainings saw."""
    image = photo(3, 90, 70)
    out = torch.empty(1, 32, 32, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    crops.resample(np.array(image)[None], np.array([5, 10, 60, 64]), out)
    theirs = image.crop((10, 5, 74, 65)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(out[0].permute(1, 2, 0).numpy().astype(int) - np.array(theirs).astype(int)).max() <= 1


def test_both_decoders_see_nearly_the_same_image(monkeypatch: pytest.MonkeyPatch) -> None:
    body = encoded(photo(1, 320, 200))
    theirs = crops.decode(body)
    monkeypatch.setattr(crops, "simplejpeg", None)
    ours = crops.decode(body)
    assert theirs.shape == ours.shape == (200, 320, 3)
    apart = np.abs(theirs.astype(int) - ours.astype(int))
    assert 0 < apart.max() <= 8 and apart.mean() < 1.5  # of 255: its faster steps are not exactly Pillow's


def test_what_simplejpeg_does_not_take_pillow_does() -> None:
    grey, cmyk = photo(2).convert("L"), photo(2).convert("CMYK")
    for image, kind in ((grey, "JPEG"), (cmyk, "JPEG"), (photo(2), "PNG")):
        found = crops.decode(encoded(image, kind))
        assert np.abs(found.astype(int) - np.array(image.convert("RGB")).astype(int)).mean() < 3


@pytest.mark.parametrize("cut", [0, 2, 300, -20])
def test_an_image_cut_short_is_not_decoded(cut: int) -> None:
    with pytest.raises(UndecodableError, match=r"\w"):
        crops.decode(encoded(photo(1))[:cut])


def test_an_image_of_noise_is_not_decoded() -> None:
    with pytest.raises(UndecodableError):
        crops.decode(io.BytesIO(b"\xff\xd8" + bytes(range(256)) * 4).getvalue())
