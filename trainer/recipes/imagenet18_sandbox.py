"""imagenet18 at sandbox scale: the shape of the 16-machine table on images of 20 to 36 pixels, for CPU ranks.

Same course (image size grows, the batch changes with it, warm-up, then steps down, a last phase with large crops and
rectangular validation), same code; a narrow residual network instead of ResNet-50, six epochs instead of fifty, and
crops that leave at least half of an image, since less of a digit is not that digit. It shows that everything works and
that it learns; it says nothing about ImageNet.
"""

from __future__ import annotations

from trainer.recipe import DataPhase, Ramp, Recipe

SIXTEEN = Recipe(
    name="imagenet18",
    scale="sandbox",
    machines=16,
    gpus_per_machine=1,
    model="resnet-sandbox",
    epochs=6,
    data=(
        DataPhase(start=0, size=20, batch=8, min_scale=0.5),
        DataPhase(start=1, size=20, batch=16, min_scale=0.5),
        DataPhase(start=2, size=28, batch=8, min_scale=0.5),
        DataPhase(start=3, size=28, batch=16, min_scale=0.5),
        DataPhase(start=4, size=36, batch=16, min_scale=0.5, rect_val=True),
    ),
    lr=(
        Ramp(0, 0.6, 1, 1.2),
        Ramp(1, 1.2),
        Ramp(2, 0.6),
        Ramp(4, 0.12),
        Ramp(5, 0.012),
    ),
    flip=False,
    eval_batch=32,
    rect_multiple=4,
    log_every=5,
    note="the sandbox scale of the recipe: a tiny network on tiny images, to show that everything works",
)

TABLES = (SIXTEEN,)
