"""The five published tables, transcribed here a second time and compared at every batch of every epoch."""

from __future__ import annotations

import pytest

from trainer import recipes, schedule
from trainer.errors import TrainerError
from trainer.recipe import DataPhase, Ramp, Recipe

IMAGENET = 1_281_167

# epochs: pixels, images per GPU, global batch, folder, least crop, rectangular validation
IMAGES = {
    1: """
        0-14  128 512 4096  sz/160 .08  -
        14-32 224 224 1792  full   .08  -
        32-35 288 128 1024  full   .5   rect""",
    2: """
        0-6   128 256 4096  sz/160 .08  -
        6-13  128 512 8192  sz/160 .08  -
        13-28 224 224 3584  sz/352 .087 -
        28-30 288 128 2048  full   .5   rect""",
    4: """
        0-6   128 256 8192  sz/160 .08  -
        6-13  128 512 16384 sz/160 .08  -
        13-28 224 224 7168  sz/352 .087 -
        28-30 288 128 4096  full   .5   rect""",
    8: """
        0-6   128 128 8192  sz/160 .08  -
        6-14  128 256 16384 sz/160 .08  -
        14-17 224 128 8192  sz/352 .087 -
        17-29 224 224 14336 sz/352 .087 -
        29-35 288 128 8192  full   .5   rect""",
    16: """
        0-6   128 64  8192  sz/160 .08  -
        6-16  128 128 16384 sz/160 .08  -
        16-19 224 64  8192  full   .08  -
        19-37 224 192 24576 full   .08  -
        37-50 288 128 16384 full   .5   rect""",
}
# epochs: learning rate at their beginning and at their end
RATES = {
    1: "0-5 1 2; 5-14 1 1; 14-16 .4375 .4375; 16-27 .04375 .04375; 27-32 .004375 .004375; 32-33 .0025 .0025; "
    "33-35 .00025 .00025",
    2: "0-6 1.5 3; 6-11 3 3; 11-13 3 1.5; 13-16 1.3125 1.3125; 16-23 1.3125 .13125; 23-28 .13125 .013125; "
    "28-30 .0075 .00075",
    4: "0-6 2 4; 6-11 4 4; 11-13 4 2; 13-16 1.75 1.75; 16-23 1.75 .175; 23-28 .175 .0175; 28-30 .01 .001",
    8: "0-6 1.88 3.76; 6-11 3.76 3.76; 11-14 3.76 1.88; 14-17 1.88 1.88; 17-23 1.88 .329; 23-29 .329 .0329; "
    "29-35 .0188 .00188",
    16: "0-6 1.88 3.76; 6-16 3.76 3.76; 16-19 1.88 1.88; 19-31 .564 .564; 31-37 .0564 .0564; 37-38 .0376 .0376; "
    "38-50 .00376 .00376",
}


def images_at(machines: int, epoch: int) -> list[str]:
    for line in IMAGES[machines].strip().splitlines():
        span, *values = line.split()
        first, last = (int(edge) for edge in span.split("-"))
        if first <= epoch < last:
            return values
    raise AssertionError(f"no images at epoch {epoch}")


def rate_at(machines: int, epoch: int, batch: int, batches: int) -> float:
    """The learning rate as the original computes it: a straight line over the batches of a stretch of epochs."""
    for part in RATES[machines].split(";"):
        span, begin, end = part.split()
        first, last = (int(edge) for edge in span.split("-"))
        if first <= epoch < last:
            done = (epoch - first) * batches + batch
            return float(begin) + (float(end) - float(begin)) * done / ((last - first) * batches)
    raise AssertionError(f"no learning rate at epoch {epoch}")


@pytest.mark.parametrize("machines", [1, 2, 4, 8, 16])
def test_every_batch_of_every_epoch_agrees_with_the_published_table(machines: int) -> None:
    recipe = recipes.find("imagenet18", "full", machines * 8)
    assert recipe.epochs == max(int(line.split()[0].split("-")[1]) for line in IMAGES[machines].strip().splitlines())
    for epoch in range(recipe.epochs):
        size, per_gpu, batch, folder, least, rect = images_at(machines, epoch)
        batches = IMAGENET // int(batch)
        assert schedule.steps(recipe, epoch, IMAGENET) == batches
        for index in range(batches):
            point = schedule.at(recipe, schedule.progress(recipe, epoch, index * int(batch), IMAGENET))
            assert (point.size, point.batch) == (int(size), int(batch))
            assert point.batch == int(per_gpu) * 8 * machines
            assert point.folder == (folder if folder != "full" else "")
            assert (point.min_scale, point.rect_val) == (float(least), rect == "rect")
            assert point.momentum == 0.9
            assert point.lr == pytest.approx(rate_at(machines, epoch, index, batches), rel=1e-9)


@pytest.mark.parametrize(("gpus", "table"), [(1, 8), (8, 8), (15, 8), (24, 16), (96, 64), (128, 128), (512, 128)])
def test_a_count_without_a_table_gets_the_largest_below_it_with_its_batches_and_rates(gpus: int, table: int) -> None:
    recipe, written = (recipes.find("imagenet18", "full", count) for count in (gpus, table))
    assert recipe.gpus == table
    for epoch in range(recipe.epochs):
        assert schedule.at(recipe, epoch) == schedule.at(written, epoch)
    assert bool(recipe.rule) == (gpus != table)
    many = "1 GPU runs" if gpus == 1 else f"{gpus} GPUs run"
    assert gpus == table or f"{many} the table for {table} " in recipe.rule


def test_kept_batches_per_gpu_take_the_learning_rate_along() -> None:
    recipe, written = (recipes.find("imagenet18", "full", n, table=128, keep="gpu-batch") for n in (96, 128))
    for epoch in range(recipe.epochs):
        here, there = schedule.at(recipe, epoch), schedule.at(written, epoch)
        assert here.batch == there.batch * 3 // 4
        assert here.lr == pytest.approx(there.lr * 3 / 4)
    assert "learning rates go with the global batch" in recipe.rule


def test_more_ranks_than_images_in_a_batch_make_a_larger_batch_at_a_higher_rate() -> None:
    recipe = recipes.find("imagenet18", "sandbox", 160)
    assert (schedule.at(recipe, 1).batch, schedule.at(recipe, 2).batch) == (256, 160)
    assert schedule.at(recipe, 2).lr == pytest.approx(0.6 * 160 / 128)
    assert "more GPUs than images" in recipe.rule
    assert "more GPUs than images" not in recipes.find("imagenet18", "sandbox", 100).rule


def test_the_rule_says_why_it_is_this_table() -> None:
    assert "(the smallest there is)" in recipes.find("imagenet18", "full", 4).rule
    assert "(the largest for fewer)" in recipes.find("imagenet18", "full", 96).rule
    assert "(as asked)" in recipes.find("imagenet18", "full", 96, table=128).rule
    assert recipes.find("imagenet18", "full", 128, table=128).rule == ""


def test_a_table_or_scale_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(TrainerError, match="no table for 24 GPUs") as refused:
        recipes.find("imagenet18", "full", 16, table=24)
    assert "8, 16, 32, 64, 128" in refused.value.hint
    with pytest.raises(TrainerError, match="no tiny scale"):
        recipes.find("imagenet18", "tiny", 16)
    with pytest.raises(TrainerError, match="cifar10-wrn has no sandbox scale"):
        recipes.find("cifar10-wrn", "sandbox", 1)


def test_the_sandbox_scale_has_the_shape_of_the_recipe_for_any_number_of_nodes() -> None:
    recipe = recipes.find("imagenet18", "sandbox", 5)
    sizes = [phase.size for phase in recipe.data]
    batches = [phase.batch for phase in recipe.data]
    rates = [schedule.at(recipe, epoch).lr for epoch in range(recipe.epochs)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3
    assert len(set(batches)) > 1
    assert rates[0] < max(rates) and rates[-1] < 0.02 * max(rates)
    assert recipe.data[-1].rect_val and recipe.data[-1].min_scale == 0.5
    assert "sandbox scale" in recipe.note
    assert 100 <= schedule.total_steps(recipe, 4500, recipe.epochs) <= 150


def recipe_of(*data: DataPhase, lr: tuple[Ramp, ...] = (Ramp(0, 1.0),)) -> Recipe:
    return Recipe(name="x", scale="full", machines=1, gpus_per_machine=1, model="resnet18", epochs=4, data=data, lr=lr)


def test_phases_out_of_order_are_refused() -> None:
    phase = DataPhase(start=1, size=8, batch=1)
    with pytest.raises(ValueError, match="start at 0"):
        recipe_of(phase)
    with pytest.raises(ValueError, match="go together"):
        recipe_of(DataPhase(start=0, size=8, batch=1), lr=(Ramp(0, 1.0, 2),))


def test_a_batch_larger_than_the_data_set_is_the_data_set() -> None:
    recipe = recipe_of(DataPhase(start=0, size=8, batch=64))
    assert schedule.batch_size(recipe, 0, 10) == 10
    assert schedule.steps(recipe, 0, 10) == 1


def test_a_phase_ends_where_images_or_batch_change() -> None:
    recipe = recipe_of(DataPhase(start=0, size=8, batch=1), DataPhase(start=2, size=8, batch=2))
    assert [schedule.ends_phase(recipe, epoch) for epoch in range(4)] == [False, True, False, False]
