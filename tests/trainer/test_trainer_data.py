from __future__ import annotations

import io
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.data import loader, pack

ITEM = loader.TrainItem((5, 9, 2), epoch=1, size=20, min_scale=0.3, folder="")


def images(root: Path, *, seed: int = 0, flip: bool = True) -> loader.Images:
    return loader.Images(root, seed=seed, flip=flip)


def test_a_batch_has_the_size_asked_for_and_the_labels_of_its_images(stripes: Path) -> None:
    pixels, labels = images(stripes)[ITEM]
    assert (pixels.shape, pixels.dtype) == ((3, 3, 20, 20), torch.uint8)
    assert labels.tolist() == [5, 9, 2]


def test_an_image_is_cropped_the_same_whoever_computes_it_and_anew_every_epoch(stripes: Path) -> None:
    whole, _ = images(stripes)[ITEM]
    alone, _ = images(stripes)[loader.TrainItem((9,), 1, 20, 0.3, "")]
    later, _ = images(stripes)[loader.TrainItem((9,), 2, 20, 0.3, "")]
    other, _ = images(stripes, seed=1)[loader.TrainItem((9,), 1, 20, 0.3, "")]
    assert torch.equal(whole[1], alone[0])
    assert not torch.equal(alone, later)
    assert not torch.equal(alone, other)


def test_flipping_is_left_out_where_the_recipe_says_so(stripes: Path) -> None:
    items = [loader.TrainItem((3,), epoch, 20, 1.0, "") for epoch in range(20)]
    flips = [not torch.equal(images(stripes, flip=True)[i][0], images(stripes, flip=False)[i][0]) for i in items]
    assert 0 < sum(flips) < len(flips)


def test_random_boxes_lie_in_the_image_and_keep_their_area_and_aspect() -> None:
    rng = Random(0)  # noqa: S311
    for _ in range(500):
        height, width = rng.randint(20, 60), rng.randint(20, 60)
        top, left, rows, columns = loader.random_box(height, width, 0.25, rng)
        assert 0 <= top <= height - rows and 0 <= left <= width - columns
        assert 0.7 < columns / rows < 1.43  # 3:4 to 4:3, and rounding
        assert rows * columns > 0.2 * height * width


def test_an_image_too_long_for_any_box_gives_its_middle() -> None:
    assert loader.random_box(10, 200, 1.0, Random(0)) == (0, 93, 10, 13)  # noqa: S311


def test_both_decoders_see_the_same_image(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = Image.fromarray(np.add.outer(np.arange(40), np.arange(64)).astype(np.uint8))
    body = io.BytesIO()
    gradient.save(body, "JPEG", quality=95)
    theirs = loader.decode(body.getvalue())
    monkeypatch.setattr(loader, "simplejpeg", None)
    ours = loader.decode(body.getvalue())
    assert theirs.shape == ours.shape == (40, 64, 3)
    assert np.abs(theirs.astype(int) - ours.astype(int)).max() <= 3


def test_square_validation_takes_the_middle_of_every_image_once(stripes: Path) -> None:
    split = images(stripes).split("", pack.VALIDATION)
    items = loader.eval_items(split, size=16, batch=10, rect_multiple=0, folder="")
    assert sorted(index for item in items for index in item.indices) == list(range(len(split)))
    assert {(item.height, item.width, item.short) for item in items} == {(16, 16, 18)}
    assert max(len(item.indices) for item in items) == 10


def test_rectangular_validation_keeps_the_aspect_ratio_of_its_batch(stripes: Path) -> None:
    split = images(stripes).split("", pack.VALIDATION)
    items = loader.eval_items(split, size=16, batch=10, rect_multiple=4, folder="")
    assert sorted(index for item in items for index in item.indices) == list(range(len(split)))
    aspects = split.widths / split.heights
    for item in items:
        mean = float(np.mean(aspects[list(item.indices)]))
        assert item.width == 16  # these images are all higher than wide
        assert item.height == max(16, int(16 / mean) // 4 * 4)
        pixels, _ = images(stripes)[item]
        assert pixels.shape == (len(item.indices), 3, item.height, item.width)
    assert len({item.height for item in items}) > 1


def test_the_middle_of_a_wide_image_is_cut_left_and_right() -> None:
    item = loader.EvalItem((0,), height=20, width=20, short=20, folder="")
    assert loader.middle(40, 100, item) == (0, 30, 40, 40)


def test_worker_processes_give_the_same_batches_in_the_same_order(stripes: Path) -> None:
    items = [loader.TrainItem((index, index + 1), 0, 20, 0.3, "") for index in range(6)]
    here = list(loader.batches(images(stripes), items, workers=0, pin=False))
    there = list(loader.batches(images(stripes), iter(items), workers=2, pin=False))
    assert len(here) == len(there) == 6
    for (ours, labels), (theirs, other) in zip(here, there, strict=True):
        assert torch.equal(ours, theirs) and torch.equal(labels, other)
