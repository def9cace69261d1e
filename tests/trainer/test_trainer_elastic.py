"""A training that goes on with other numbers of ranks: it stays the same training, image for image."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.trainer import recorded
from tests.trainer.zygote import Zygote, logs, progress
from trainer import checkpoint
from trainer.data import order
from trainer.errors import STOPPED
from trainer.recipe import Recipe
from trainer.recipes.imagenet18_sandbox import SIXTEEN

TRAIN = 400
Lives = list[tuple[int, int]]  # of each: ranks, and steps until it is stopped (0: it goes to the end)


def live(
    zygote: Zygote,
    data: Path,
    root: Path,
    lives: Lives,
    *more: str,
    first: str = "",
    env: Mapping[str, str] | None = None,
) -> None:
    """Train through `lives`, each in a folder of its own; only rank 0 keeps its checkpoints from one to the next.

    `more` are flags of all lives, `first` those that only the first one is given.
    """
    for life, (world, steps) in enumerate(lives):
        flags = (*more, *(first.split() if life == 0 else ()))
        command = ("imagenet18", "--data", str(data), "--scale", "sandbox", "--log-every", "1", *flags)
        folder = root / str(life)
        if life:
            before = root / str(life - 1) / "0" / "checkpoints"
            shutil.copytree(before, folder / "0" / "checkpoints")
        asks = world - 1  # the rank on which the stop file lies

        def own(rank: int, steps: int = steps, asks: int = asks) -> dict[str, str]:
            return {**(env or {}), **({"STOP_AFTER": str(steps)} if steps and rank == asks else {})}

        codes = zygote.train(folder, world, *command, env=own, target="recorded:main")
        assert codes == [STOPPED if steps else 0] * world, logs(folder)


def whole(recipe: Recipe, epochs: int | None = None) -> list[tuple[int, list[int]]]:
    """Return the global batches of a training that nothing interrupts."""
    plan = order.remaining(recipe, TRAIN, 0, epoch=0, seen=0, epochs=epochs or recipe.epochs)
    return [(batch.epoch, batch.indices.tolist()) for batch in plan]


def newest(folder: Path) -> dict[str, Any]:
    loaded = checkpoint.newest(folder / "0" / "checkpoints", lambda step, error: None)
    assert loaded is not None, logs(folder)
    return loaded.meta


def test_interrupted_it_sees_the_images_of_one_run_and_keeps_the_table_it_began_with(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    """Three ranks alone would get the table for three; they are told by a checkpoint that only rank 0 has."""
    lives = [(4, 2), (3, 3), (4, 0)]
    live(zygote, stripes, tmp_path, lives, env={"TABLES": "1"})
    four = recorded.TABLES[1]
    assert recorded.batches(tmp_path, [world for world, _ in lives]) == whole(four)
    for life, (world, _) in enumerate(lives):
        assert (newest(tmp_path / str(life))["gpus"], newest(tmp_path / str(life))["world_size"]) == (4, world)
    log = (tmp_path / "1" / "0" / "log").read_text()
    assert "the table for 4 GPUs on 3: the one that checkpoint 2 began with" in log
    assert "4 ranks before, 3 now: the global batch is kept: 128 images a step, at most 43 a rank" in log
    resumed = progress(tmp_path / "2", "resumed")[0]
    assert (resumed["step"], resumed["epoch"], resumed["samples_seen"]) == (5, 2, 128)

    shutil.copytree(tmp_path / "1" / "0" / "checkpoints", tmp_path / "x" / "0" / "checkpoints")
    command = ("imagenet18", "--data", str(stripes), "--scale", "sandbox", "--table", "3")
    codes = zygote.train(tmp_path / "x", 2, *command, env=lambda rank: {"TABLES": "1"}, target="recorded:main")
    assert codes == [2, 2]
    for rank in (0, 1):
        text = (tmp_path / "x" / str(rank) / "log").read_text()
        assert "checkpoint 5 is of another training: gpus 4, not 3" in text and "Traceback" not in text


def test_where_the_batch_per_gpu_is_kept_the_rest_of_an_epoch_comes_in_other_batches(
    zygote: Zygote, stripes: Path, tmp_path: Path
) -> None:
    lives = [(4, 5), (3, 4), (4, 0)]
    live(zygote, stripes, tmp_path, lives, "--epochs", "2", first="--keep gpu-batch")
    sizes = []
    for epoch, group in groupby(recorded.batches(tmp_path, [4, 3, 4]), key=lambda batch: batch[0]):
        batches = [indices for _, indices in group]
        seen = [index for indices in batches for index in indices]
        assert seen == order.permutation(0, epoch, TRAIN)[: len(seen)].tolist()
        sizes.append([len(indices) for indices in batches])
        assert TRAIN - len(seen) < sizes[-1][-1]
    assert sizes[0] == [32] * 5 + [24] * 4 + [32] * 4
    assert sizes[1] == [64] * 6
    log = (tmp_path / "1" / "0" / "log").read_text()
    assert "4 ranks before, 3 now: the batch per GPU is kept: 24 images a step" in log
    assert "learning rates times 0.1875" in log


@pytest.mark.long
def test_sixteen_ranks_become_twelve_and_sixteen_again(zygote: Zygote, stripes: Path, tmp_path: Path) -> None:
    lives = [(16, 1), (12, 4), (16, 2), (12, 1), (16, 0)]
    live(zygote, stripes, tmp_path, lives)
    assert recorded.batches(tmp_path, [world for world, _ in lives]) == whole(SIXTEEN)
    assert newest(tmp_path / "4")["world_size"] == 16
