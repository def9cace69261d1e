"""The tables of the other recipes, transcribed a second time in the words of their sources, at every batch."""

from __future__ import annotations

import json

import pytest

from trainer import recipes, schedule
from trainer.recipe import CIFAR_MEAN, CIFAR_STD, Recipe

IMAGENET, CIFAR = 1_281_167, 50_000

# What the entry of 2020 says (ImageNet/train/alibabacloud_resnet50_gn6e_1_machine_tensorflow.json).
ENTRY = json.loads("""{
    "use_nesterov": true, "max_momentum": 0.96, "min_momentum": 0.90, "weightDecay": 0.0001, "warmup_epochs": 5,
    "schedule": {"max_lr": 1.2, "min_lr": 0.0001},
    "imageSize": [
        {"image_size": 96, "epochs": 12, "rect_val": false, "min_scale": 0.08},
        {"image_size": 128, "epochs": 6, "rect_val": false, "min_scale": 0.08},
        {"image_size": 224, "epochs": 2, "rect_val": false, "min_scale": 0.08},
        {"image_size": 288, "epochs": 1, "rect_val": true, "min_scale": 0.5}
    ],
    "batchSize": [{"batch_size": 2048, "epochs": 20}, {"batch_size": 1024, "epochs": 1}]
}""")


def test_every_batch_of_imagenet_21ep_is_as_the_entry_says() -> None:
    recipe = recipes.find("imagenet-21ep", "full", 8)
    images = [part for part in ENTRY["imageSize"] for _ in range(part["epochs"])]
    batches = [part["batch_size"] for part in ENTRY["batchSize"] for _ in range(part["epochs"])]
    low, high, warm = ENTRY["schedule"]["min_lr"], ENTRY["schedule"]["max_lr"], ENTRY["warmup_epochs"]
    calm, swift = ENTRY["max_momentum"], ENTRY["min_momentum"]
    assert recipe.epochs == len(images) == len(batches) == 21
    for epoch, (image, batch) in enumerate(zip(images, batches, strict=True)):
        steps = IMAGENET // batch
        assert schedule.steps(recipe, epoch, IMAGENET) == steps
        for index in range(steps):
            point = schedule.at(recipe, schedule.progress(recipe, epoch, index * batch, IMAGENET))
            assert (point.size, point.batch) == (image["image_size"], batch)
            assert (point.min_scale, point.rect_val) == (image["min_scale"], image["rect_val"])
            assert point.folder == {96: "sz/160", 128: "sz/160", 224: "sz/352", 288: ""}[point.size]
            now = epoch + index / steps
            height = now / warm if now < warm else (21 - now) / (21 - warm)  # 0 at the ends, 1 after the warm-up
            assert point.lr == pytest.approx(low * (1 - height) + high * height)
            assert point.momentum == pytest.approx(calm * (1 - height) + swift * height)
    assert (recipe.nesterov, recipe.weight_decay, recipe.decay_norms) == (True, ENTRY["weightDecay"], False)


@pytest.mark.parametrize(
    ("gpus", "flags"),
    [
        (1, "--cycle-len 30 --lr 1.5 --wd 1e-4 -b 512 --use-clr 20,20,0.95,0.85"),
        (8, "--cycle-len 40 --lr 2.0 --wd 2e-4 -b 128 --use-clr 50,12.5,0.95,0.85"),
    ],
)
def test_every_batch_of_cifar10_wrn_is_as_fast_ais_flags_make_it(gpus: int, flags: str) -> None:
    words = flags.split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    div, percent, high, low = (float(number) for number in given["--use-clr"].split(","))
    peak, epochs, batch = float(given["--lr"]), int(given["--cycle-len"]), int(given["-b"]) * gpus
    recipe = recipes.find("cifar10-wrn", "full", gpus)
    assert (recipe.epochs, recipe.weight_decay, recipe.nesterov) == (epochs, float(given["--wd"]), False)
    steps = CIFAR // batch
    total = epochs * steps
    half = total * (100 - percent) / 200
    for step in range(total):
        point = schedule.at(recipe, schedule.progress(recipe, step // steps, step % steps * batch, CIFAR))
        assert (point.size, point.batch) == (32, batch)
        if step <= 2 * half:  # a triangle over both halves, then a tail
            up = 1 - abs(step - half) / half
            rate, momentum = (peak / div) * (1 + up * (div - 1)), high - up * (high - low)
        else:
            rate, momentum = (peak / div) * (1 - 0.99 * (step - 2 * half) / (total - 2 * half)), high
        assert point.lr == pytest.approx(rate)
        assert point.momentum == pytest.approx(momentum)


def test_every_batch_of_cifar10_preact18_is_as_its_author_computes_it() -> None:
    recipe = recipes.find("cifar10-preact18", "full", 1)
    peak, epochs, low, extra, burnout = 0.1, 30, 0.005, 5, 5  # the defaults of the original
    steps = CIFAR // 128
    assert recipe.epochs == epochs + extra + burnout
    for step in range(recipe.epochs * steps):
        point = schedule.at(recipe, schedule.progress(recipe, step // steps, step % steps * 128, CIFAR))
        now = step / steps
        if step * 2 < epochs * steps:
            rate = peak * 2 * now / epochs
        elif step < epochs * steps:
            rate = low + peak * 2 * (1 - now / epochs)
        elif step < (epochs + extra) * steps:
            rate = low * (1 - (now - epochs) / extra)
        else:
            rate = low / 10
        assert point.lr == pytest.approx(rate, abs=1e-12)
        assert (point.size, point.batch, point.momentum) == (32, 128, 0.9)
    assert (recipe.nesterov, recipe.weight_decay) == (True, 5e-4)


@pytest.mark.parametrize(
    ("name", "gpus", "model"),
    [("cifar10-wrn", 1, "wrn22-6"), ("cifar10-wrn", 8, "wrn22-6"), ("cifar10-preact18", 1, "preact18")],
)
def test_cifar_images_are_padded_cropped_and_flipped_and_validated_as_they_are(
    name: str, gpus: int, model: str
) -> None:
    recipe = recipes.find(name, "full", gpus)
    assert recipe.rule == "" and recipe.model == model
    assert (recipe.padding, recipe.flip, recipe.border) == (4, True, 1.0)
    assert (recipe.mean, recipe.std) == (CIFAR_MEAN, CIFAR_STD)
    assert recipe.decay_norms


def rises_and_falls(rates: list[float]) -> bool:
    top = rates.index(max(rates))
    return top > 0 and rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def course(recipe: Recipe, value: str) -> list[float]:
    return [getattr(schedule.at(recipe, tenth / 10), value) for tenth in range(10 * recipe.epochs)]


def test_the_sandbox_scale_of_cifar10_is_the_recipe_made_small() -> None:
    small, real = recipes.find("cifar10-preact18", "sandbox", 4), recipes.find("cifar10-preact18", "full", 1)
    for kept in ("padding", "border", "flip", "mean", "std", "nesterov", "weight_decay", "decay_norms", "momentum"):
        assert getattr(small, kept) == getattr(real, kept)
    assert {phase.size for phase in small.data} == {phase.size for phase in real.data} == {32}
    assert schedule.at(small, 0).batch == schedule.at(real, 0).batch
    assert rises_and_falls(course(small, "lr"))
    assert rises_and_falls(course(real, "lr")[:350])  # after that a little again, as in the original
    assert "sandbox scale" in small.note
    assert schedule.total_steps(small, CIFAR, small.epochs) < 1000


def test_the_sandbox_scale_of_imagenet_21ep_is_the_recipe_made_small() -> None:
    small, real = recipes.find("imagenet-21ep", "sandbox", 4), recipes.find("imagenet-21ep", "full", 8)
    for recipe in (small, real):
        sizes = [phase.size for phase in recipe.data]
        assert sizes == sorted(set(sizes)) and len(sizes) == 4
        assert [phase.rect_val for phase in recipe.data] == [False, False, False, True]
        assert schedule.at(recipe, recipe.epochs - 1).batch * 2 == schedule.at(recipe, 0).batch
        assert rises_and_falls(course(recipe, "lr"))
        assert rises_and_falls([1 - momentum for momentum in course(recipe, "momentum")])
    assert small.nesterov and small.weight_decay == real.weight_decay
    assert "sandbox scale" in small.note


def test_tables_are_listed_by_their_number_of_gpus_under_their_own_name() -> None:
    for name, scales in recipes.RECIPES.items():
        for scale, tables in scales.items():
            assert {(table.name, table.scale) for table in tables} == {(name, scale)}
            counts = [table.gpus for table in tables]
            assert counts == sorted(set(counts))
