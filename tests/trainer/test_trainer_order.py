from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import order
from trainer.recipe import DataPhase, Ramp, Recipe

RECIPE = Recipe(
    name="x",
    scale="full",
    machines=4,
    gpus_per_machine=1,
    model="resnet18",
    epochs=3,
    data=(DataPhase(start=0, size=8, batch=4), DataPhase(start=1, size=8, batch=7)),
    lr=(Ramp(0, 1.0),),
)
SAMPLES = 101


def sequence(epoch: int = 0, seen: int = 0, seed: int = 0) -> list[order.GlobalBatch]:
    return list(order.remaining(RECIPE, SAMPLES, seed, epoch=epoch, seen=seen, epochs=3))


def test_an_epoch_sees_no_image_twice_and_leaves_out_less_than_a_batch() -> None:
    for epoch, size in ((0, 16), (1, 28), (2, 28)):
        seen = np.concatenate([batch.indices for batch in sequence() if batch.epoch == epoch])
        assert len(set(seen.tolist())) == len(seen) == SAMPLES // size * size


def test_the_order_changes_with_the_epoch_and_with_the_seed_and_with_nothing_else() -> None:
    orders = {order.permutation(seed, epoch, 50).tobytes() for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    first = order.permutation(3, 2, 50).copy()
    order.permutation.cache_clear()
    assert np.array_equal(order.permutation(3, 2, 50), first)


@pytest.mark.parametrize("world", [1, 2, 3, 5, 16])
def test_ranks_share_a_batch_without_overlap_as_evenly_as_can_be(world: int) -> None:
    for batch in sequence():
        shares = [order.share(batch, rank, world) for rank in range(world)]
        assert sorted(np.concatenate(shares).tolist()) == sorted(batch.indices.tolist())
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12)), max_size=6))
def test_interrupted_anywhere_with_any_number_of_ranks_the_images_are_those_of_one_run(
    lives: list[tuple[int, int]],
) -> None:
    """Each life trains some steps with some number of ranks; what it trained on is put together from its ranks."""
    whole = sequence()
    epoch, seen = 0, 0
    trained: list[list[int]] = []
    for steps, world in [*lives, (len(whole), 1)]:
        rest = order.remaining(RECIPE, SAMPLES, 0, epoch=epoch, seen=seen, epochs=3)
        for _, batch in zip(range(steps), rest, strict=False):
            together = np.empty(len(batch.indices), dtype=np.int64)
            for rank in range(world):
                together[rank::world] = order.share(batch, rank, world)
            trained.append(together.tolist())
            epoch, seen = batch.epoch, batch.seen + len(batch.indices)
    assert trained == [batch.indices.tolist() for batch in whole]
