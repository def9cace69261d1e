from __future__ import annotations

import pytest

from trainer.data.damage import Damage, borne
from trainer.errors import TrainerError


@pytest.mark.parametrize(
    ("share", "images", "count"),
    [(0.001, 100, 3), (0.001, 3999, 3), (0.001, 1_281_167, 1281), (1, 10, 10), (0, 10**6, 0)],
)
def test_a_share_is_borne_or_a_few_but_none_where_none_is_allowed(share: float, images: int, count: int) -> None:
    assert borne(share, images) == count


def test_a_few_images_are_borne_however_often_they_are_met() -> None:
    damage = Damage(0.001)
    for _ in range(50):
        damage.note(["a", "b", "c"], 10)
    assert damage.fresh() == ["a", "b", "c"]


def test_more_than_a_few_are_borne_up_to_the_share_of_all_there_are_and_not_of_those_read_so_far() -> None:
    damage = Damage(0.1)
    damage.note(["a", "b", "c", "d", "e"], 50)
    with pytest.raises(TrainerError, match=r"6 of 50 images cannot be decoded, more than 10.00%: a; b; c; \.\.\."):
        damage.note(["f"], 50)


def test_none_are_borne_where_none_are_allowed() -> None:
    with pytest.raises(TrainerError, match="1 of 1,000 images"):
        Damage(0).note(["a"], 1000)


def test_names_are_told_once() -> None:
    damage = Damage()
    damage.note(["a"], 10)
    assert damage.fresh() == ["a"]
    damage.note(["b", "a"], 10)
    assert damage.fresh() == ["b"]
