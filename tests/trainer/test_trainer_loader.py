from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.trainer.pictures import encode, encoded, photo, raw
from trainer.data import crops, loader, pack
from trainer.data.loader import EvalItem, TrainItem
from trainer.data.workers import Batch
from trainer.errors import TrainerError


def images(root: Path, *, padding: int = 0, max_corrupt: float = 1) -> loader.Images:
    return loader.Images(root, seed=0, flip=True, padding=padding, max_corrupt=max_corrupt)


def same(ours: Batch, theirs: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return torch.equal(ours.images, theirs[0]) and torch.equal(ours.labels, theirs[1])


def files(count: int) -> list[bytes]:
    return [encoded(photo(number)) for number in range(count)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_same_and_in_order_however_many_make_them(stripes: Path, workers: int) -> None:
    """Sizes and numbers of images change on the way, as they do between phases; slots are used many times over."""
    items = [
        TrainItem(tuple(range(step, step + 2 + step % 3)), 0, 36 if 10 <= step < 20 else 20, 0.3, "")
        for step in range(31)
    ]
    alone = [images(stripes)[item] for item in items]
    made = loader.batches(images(stripes), iter(items), workers=workers, pin=False)
    together = [(pixels.clone(), labels) for pixels, labels in made]
    assert len(together) == len(alone)
    assert all(same(ours, theirs) for ours, theirs in zip(alone, together, strict=True))


def test_items_are_asked_for_only_a_little_ahead(stripes: Path) -> None:
    """A training knows its items to the end, but must not hold them all, nor decode what a stop makes needless."""
    asked = []

    def items() -> Iterator[TrainItem]:
        for step in range(1000):
            asked.append(step)
            yield TrainItem((step % 400,), 0, 20, 0.3, "")

    some = loader.batches(images(stripes), items(), workers=2, pin=False)
    for _ in range(3):
        next(some)
    assert len(asked) < 20


@pytest.mark.parametrize("padding", [0, 2])
def test_raw_packs_give_what_the_same_pixels_encoded_without_loss_give(tmp_path: Path, padding: int) -> None:
    pixels = raw(tmp_path / "raw", 12, side=24)
    with pack.Writer(tmp_path / "png" / pack.TRAIN) as writer:
        for number, image in enumerate(pixels):
            writer.add(encoded(Image.fromarray(image), "PNG"), number % 10, 24, 24)
    for size in (24, 20):
        item = TrainItem((3, 11, 0, 3), 2, size, 0.3, "")
        ours, theirs = (images(tmp_path / kind, padding=padding)[item] for kind in ("raw", "png"))
        assert same(ours, (theirs.images, theirs.labels))
        assert ours.labels.tolist() == [3, 1, 0, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_image_stands_in_for_one_that_cannot_be_decoded(tmp_path: Path, workers: int) -> None:
    bodies = files(6)
    bodies[2], bodies[3], bodies[5] = bodies[2][:300], b"", b"\xff\xd8 nothing"
    encode(tmp_path, bodies)
    of = images(tmp_path)
    (found,) = loader.batches(of, [TrainItem((1, 2, 5), 0, 20, 0.3, "")], workers=workers, pin=False)
    stands = images(tmp_path)[TrainItem((1, 4, 0), 0, 20, 0.3, "")]
    assert same(stands, found)
    assert of.damage.fresh() == ["train image 2 (some/2.jpg)", "train image 5 (some/5.jpg)"]
    assert of.damage.fresh() == []


def test_a_validation_image_that_cannot_be_decoded_has_no_right_answer(tmp_path: Path) -> None:
    bodies = files(6)
    bodies[2] = bodies[2][:300]
    encode(tmp_path, bodies, pack.VALIDATION)
    batch = images(tmp_path)[EvalItem((1, 2, 3), 20, 20, 22, "")]
    assert (batch.labels.tolist(), len(batch.replaced)) == ([1, loader.UNKNOWN, 3], 1)


def test_an_image_of_another_size_than_the_index_says_is_replaced(tmp_path: Path) -> None:
    bodies = files(3)
    bodies[1] = encoded(photo(1, 61, 40))
    encode(tmp_path, bodies)
    batch = images(tmp_path)[TrainItem((0, 1), 0, 20, 0.3, "")]
    assert (batch.labels.tolist(), len(batch.replaced)) == ([0, 2], 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_where_nothing_can_be_decoded_it_says_so_in_one_line(tmp_path: Path, workers: int) -> None:
    encode(tmp_path, [b"nothing"] * 5)
    with pytest.raises(TrainerError, match=r"train image 0 .* and the 100 after it cannot be decoded") as caught:
        list(loader.batches(images(tmp_path), [TrainItem((0,), 0, 20, 0.3, "")], workers=workers, pin=False))
    assert "\n" not in caught.value.message
    assert caught.value.hint == "copy or pack the data set again"


def test_too_many_corrupt_images_end_the_training(tmp_path: Path) -> None:
    bodies = files(10)
    bodies[1] = bodies[4] = bodies[6] = bodies[8] = b""
    encode(tmp_path, bodies)
    items = [TrainItem(tuple(range(10)), epoch, 20, 0.3, "") for epoch in range(2)]
    assert len(list(loader.batches(images(tmp_path, max_corrupt=0.4), items, workers=0, pin=False))) == 2
    with pytest.raises(TrainerError, match=r"4 of 10 images cannot be decoded, more than 30.00%: train image 1"):
        list(loader.batches(images(tmp_path, max_corrupt=0.3), items, workers=0, pin=False))


def test_without_simplejpeg_the_same_boxes_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path, files(8))
    item = TrainItem(tuple(range(8)), 0, 32, 0.3, "")
    fast = images(tmp_path)[item].images.float()
    monkeypatch.setattr(crops, "simplejpeg", None)
    slow = images(tmp_path)[item].images.float()
    assert 0 < (fast - slow).abs().mean() < 4
