"""imagenet-21ep at sandbox scale: its shape on images of 16 to 36 pixels, for CPU ranks of one machine.

Same course (still smaller images first, the learning rate up and down in two straight lines, momentum against it, half
the batch and rectangular validation at the end), same code; a narrow network, six epochs, and crops that leave at least
half of an image. It shows that everything works and that it learns; it says nothing about ImageNet.
"""

from __future__ import annotations

from dataclasses import replace

from trainer.recipe import DataPhase, Ramp
from trainer.recipes import imagenet_21ep

FOUR = replace(
    imagenet_21ep.EIGHT,
    scale="sandbox",
    gpus_per_machine=4,
    model="resnet-sandbox",
    epochs=6,
    data=(
        DataPhase(start=0, size=16, batch=32, min_scale=0.5),
        DataPhase(start=3, size=20, batch=32, min_scale=0.5),
        DataPhase(start=4, size=28, batch=32, min_scale=0.5),
        DataPhase(start=5, size=36, batch=16, min_scale=0.5, rect_val=True),
    ),
    lr=(Ramp(0, 0.0001, 1.5, 0.6), Ramp(1.5, 0.6, 6, 0.0001)),
    momentum=(Ramp(0, 0.96, 1.5, 0.90), Ramp(1.5, 0.90, 6, 0.96)),
    flip=False,
    eval_batch=32,
    rect_multiple=4,
    memory_gib=16,
    log_every=5,
    note="the sandbox scale of the recipe: a tiny network on tiny images, to show that everything works",
)

TABLES = (FOUR,)
