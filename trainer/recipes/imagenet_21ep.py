"""imagenet-21ep: ResNet-50 on ImageNet to 93% top-5 on one machine, Alibaba Cloud's DAWNBench entry of March 2020.

The idea of imagenet18 with still smaller images, a falling and rising momentum, and one machine of 8 V100 with 32 GB
each. Published: 93.05% top-5 (75.58% top-1) after 0.3605 hours, 21:38, $7.43 at $20.60 an hour: the cheapest training
of all entries. Source: dawn-bench-entries, ImageNet/train/alibabacloud_resnet50_gn6e_1_machine_tensorflow.json; its
code was not published.

Known from the entry: image sizes and their epochs, global batches, least crops, rectangular validation in the last
epoch, Nesterov, learning rate "linear" of at most 1.2 and at least 0.0001, 5 epochs of warm-up, momentum "dynamic" from
0.90 to 0.96, weight decay 1e-4.

Our reading, where it is silent: the learning rate rises in a straight line from its minimum through the warm-up and
falls in one to its minimum at the end; momentum does the opposite, as the 16-machine entry of the same team ("cycle
linear") and Smith's one-cycle policy (arXiv:1803.09820) have it; batch normalisation is spared the weight decay, and
the last one of each block begins at zero, as in imagenet18; no label smoothing, which only the 16-machine entry lists.
The copies of the images are our choice, those of imagenet18: short side 160 below 224 pixels, 352 at 224.
"""

from __future__ import annotations

from trainer.recipe import DataPhase, Ramp, Recipe
from trainer.recipes.imagenet18 import MEDIUM, SMALL

EIGHT = Recipe(
    name="imagenet-21ep",
    scale="full",
    machines=1,
    gpus_per_machine=8,
    model="resnet50",
    epochs=21,
    data=(
        DataPhase(start=0, size=96, batch=256, folder=SMALL),
        DataPhase(start=12, size=128, batch=256, folder=SMALL),
        DataPhase(start=18, size=224, batch=256, folder=MEDIUM),
        DataPhase(start=20, size=288, batch=128, min_scale=0.5, rect_val=True),
    ),
    lr=(Ramp(0, 0.0001, 5, 1.2), Ramp(5, 1.2, 21, 0.0001)),
    momentum=(Ramp(0, 0.96, 5, 0.90), Ramp(5, 0.90, 21, 0.96)),
    nesterov=True,
    memory_gib=32,
)

TABLES = (EIGHT,)
