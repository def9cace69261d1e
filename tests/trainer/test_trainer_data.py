from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.pictures import raw
from trainer.data import crops, loader, pack
from trainer.data.loader import EvalItem, TrainItem

ITEM = TrainItem((5, 9, 2), epoch=1, size=20, min_scale=0.3, folder="")


def images(root: Path, *, seed: int = 0, flip: bool = True, padding: int = 0) -> loader.Images:
    return loader.Images(root, seed=seed, flip=flip, padding=padding)


def test_a_batch_has_the_size_asked_for_and_the_labels_of_its_images(stripes: Path) -> None:
    batch = images(stripes)[ITEM]
    assert (batch.images.shape, batch.images.dtype) == ((3, 3, 20, 20), torch.uint8)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert (batch.labels.tolist(), batch.replaced) == ([5, 9, 2], ())


@pytest.mark.parametrize("padding", [0, 4])
def test_an_image_is_changed_the_same_whoever_computes_it_and_anew_every_epoch(stripes: Path, padding: int) -> None:
    some = tuple(range(9, 0, -1))
    whole = images(stripes, padding=padding)[TrainItem(some, 1, 20, 0.3, "")].images
    for row, index in enumerate(some):
        alone = images(stripes, padding=padding)[TrainItem((index,), 1, 20, 0.3, "")].images
        assert torch.equal(whole[row], alone[0])
    later = images(stripes, padding=padding)[TrainItem(some, 2, 20, 0.3, "")].images
    other = images(stripes, padding=padding, seed=1)[TrainItem(some, 1, 20, 0.3, "")].images
    for changed in (later, other):
        assert sum(torch.equal(*pair) for pair in zip(whole, changed, strict=True)) < 2


@pytest.mark.parametrize("padding", [0, 2])
def test_half_of_the_images_are_mirrored_unless_the_recipe_has_no_flips(tmp_path: Path, padding: int) -> None:
    raw(tmp_path, 200)
    item = TrainItem(tuple(range(200)), 3, 20, 1.0, "")
    flipped = images(tmp_path, padding=padding)[item].images
    as_they_are = images(tmp_path, flip=False, padding=padding)[item].images
    mirrored = [torch.equal(ours, theirs.flip(-1)) for ours, theirs in zip(flipped, as_they_are, strict=True)]
    same = [torch.equal(ours, theirs) for ours, theirs in zip(flipped, as_they_are, strict=True)]
    assert all(one or other for one, other in zip(mirrored, same, strict=True))
    assert 70 < sum(mirrored) < 130
    assert mirrored == crops.flips(0, 3, np.arange(200)).tolist()


def test_padded_images_keep_their_size_and_are_moved_by_the_padding_at_most(tmp_path: Path) -> None:
    pixels = raw(tmp_path, 60)
    side = pixels.shape[1]
    moved = images(tmp_path, flip=False, padding=3)[TrainItem(tuple(range(60)), 0, side, 0.08, "")].images
    padded = np.pad(pixels, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    found = set()
    for image, wide in zip(moved.permute(0, 2, 3, 1).numpy(), padded, strict=True):
        places = [(y, x) for y in range(7) for x in range(7) if (wide[y : y + side, x : x + side] == image).all()]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 25  # of 49 places


def test_square_validation_takes_the_middle_of_every_image_once(stripes: Path) -> None:
    split = images(stripes).split("", pack.VALIDATION)
    items = loader.eval_items(split, size=16, batch=10, rect_multiple=0, folder="", border=1.14)
    assert sorted(index for item in items for index in item.indices) == list(range(len(split)))
    assert {(item.height, item.width, item.short) for item in items} == {(16, 16, 18)}
    assert max(len(item.indices) for item in items) == 10


def test_rectangular_validation_keeps_the_aspect_ratio_of_its_batch(stripes: Path) -> None:
    split = images(stripes).split("", pack.VALIDATION)
    items = loader.eval_items(split, size=16, batch=10, rect_multiple=4, folder="", border=1.14)
    assert sorted(index for item in items for index in item.indices) == list(range(len(split)))
    aspects = split.widths / split.heights
    for item in items:
        mean = float(np.mean(aspects[list(item.indices)]))
        assert item.width == 16  # these images are all higher than wide
        assert item.height == max(16, int(16 / mean) // 4 * 4)
        found = images(stripes)[item].images
        assert found.shape == (len(item.indices), 3, item.height, item.width)
    assert len({item.height for item in items}) > 1


def test_validation_images_of_the_size_asked_for_are_left_as_they_are(tmp_path: Path) -> None:
    pixels = raw(tmp_path, 12)
    items = loader.eval_items(
        images(tmp_path).split("", pack.VALIDATION), size=20, batch=12, rect_multiple=0, folder="", border=1
    )
    assert items == [EvalItem(tuple(range(12)), 20, 20, 20, "")]
    assert (images(tmp_path)[items[0]].images.permute(0, 2, 3, 1).numpy() == pixels).all()
