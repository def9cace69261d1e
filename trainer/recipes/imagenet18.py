"""imagenet18: ResNet-50 on ImageNet to 93% top-5, the published 2018 tables for p3.16xlarge machines (8 V100 each).

Momentum is 0.9 throughout and weight decay 1e-4, not applied to batch normalisation. `sz/160` and `sz/352` are copies
of the images with that short side; an empty folder means the images as they are. What the tables reached, as published:
1 machine 93.00 in 109:12, 2 machines 93.36 in 54 minutes, 4 machines 93.05 in 29:44, 8 machines 93.0 in 19:04,
16 machines 93.04 in 16:08 (after warming the disks; in the very first epoch at 288 pixels).
"""

from __future__ import annotations

from trainer.recipe import DataPhase, Ramp, Recipe

SMALL = "sz/160"
MEDIUM = "sz/352"


def _recipe(machines: int, epochs: int, data: tuple[DataPhase, ...], lr: tuple[Ramp, ...]) -> Recipe:
    return Recipe(
        name="imagenet18",
        scale="full",
        machines=machines,
        gpus_per_machine=8,
        model="resnet50",
        epochs=epochs,
        data=data,
        lr=lr,
    )


ONE = _recipe(
    1,
    35,
    data=(
        DataPhase(start=0, size=128, batch=512, folder=SMALL),
        DataPhase(start=14, size=224, batch=224),
        DataPhase(start=32, size=288, batch=128, min_scale=0.5, rect_val=True),
    ),
    lr=(
        Ramp(0, 1.0, 5, 2.0),
        Ramp(5, 1.0),
        Ramp(14, 0.4375),
        Ramp(16, 0.04375),
        Ramp(27, 0.004375),
        Ramp(32, 0.0025),
        Ramp(33, 0.00025),
    ),
)

# Two and four machines run the same images at the same batch per GPU.
_TWO_AND_FOUR = (
    DataPhase(start=0, size=128, batch=256, folder=SMALL),
    DataPhase(start=6, size=128, batch=512, folder=SMALL),
    DataPhase(start=13, size=224, batch=224, folder=MEDIUM, min_scale=0.087),
    DataPhase(start=28, size=288, batch=128, min_scale=0.5, rect_val=True),
)

TWO = _recipe(
    2,
    30,
    data=_TWO_AND_FOUR,
    lr=(
        Ramp(0, 1.5, 6, 3.0),
        Ramp(6, 3.0),
        Ramp(11, 3.0, 13, 1.5),
        Ramp(13, 1.3125),
        Ramp(16, 1.3125, 23, 0.13125),
        Ramp(23, 0.13125, 28, 0.013125),
        Ramp(28, 0.0075, 30, 0.00075),
    ),
)

FOUR = _recipe(
    4,
    30,
    data=_TWO_AND_FOUR,
    lr=(
        Ramp(0, 2.0, 6, 4.0),
        Ramp(6, 4.0),
        Ramp(11, 4.0, 13, 2.0),
        Ramp(13, 1.75),
        Ramp(16, 1.75, 23, 0.175),
        Ramp(23, 0.175, 28, 0.0175),
        Ramp(28, 0.01, 30, 0.001),
    ),
)

EIGHT = _recipe(
    8,
    35,
    data=(
        DataPhase(start=0, size=128, batch=128, folder=SMALL),
        DataPhase(start=6, size=128, batch=256, folder=SMALL),
        DataPhase(start=14, size=224, batch=128, folder=MEDIUM, min_scale=0.087),
        DataPhase(start=17, size=224, batch=224, folder=MEDIUM, min_scale=0.087),
        DataPhase(start=29, size=288, batch=128, min_scale=0.5, rect_val=True),
    ),
    lr=(
        Ramp(0, 1.88, 6, 3.76),
        Ramp(6, 3.76),
        Ramp(11, 3.76, 14, 1.88),
        Ramp(14, 1.88),
        Ramp(17, 1.88, 23, 0.329),
        Ramp(23, 0.329, 29, 0.0329),
        Ramp(29, 0.0188, 35, 0.00188),
    ),
)

SIXTEEN = _recipe(
    16,
    50,
    data=(
        DataPhase(start=0, size=128, batch=64, folder=SMALL),
        DataPhase(start=6, size=128, batch=128, folder=SMALL),
        DataPhase(start=16, size=224, batch=64),
        DataPhase(start=19, size=224, batch=192),
        DataPhase(start=37, size=288, batch=128, min_scale=0.5, rect_val=True),
    ),
    lr=(
        Ramp(0, 1.88, 6, 3.76),
        Ramp(6, 3.76),
        Ramp(16, 1.88),
        Ramp(19, 0.564),
        Ramp(31, 0.0564),
        Ramp(37, 0.0376),
        Ramp(38, 0.00376),
    ),
)

TABLES = (ONE, TWO, FOUR, EIGHT, SIXTEEN)
