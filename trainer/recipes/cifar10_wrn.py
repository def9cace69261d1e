"""cifar10-wrn: WRN-22-6 on CIFAR-10 to 94%, fast.ai's DAWNBench entries of April 2018 for one machine, and for one GPU.

8 V100 (p3.16xlarge): 94.03% after 36 of 40 epochs, 2:54, $1.18. One V100 (Paperspace): 94.04% after 27 of 30 epochs,
6:44, $0.26. Flags as published (fastai/imagenet-fast at 1bc5aee, cifar10/dawn_submission):

    8 GPUs: -b 128 --cycle-len 40 --lr 2.0 --wd 2e-4 --use-clr 50,12.5,0.95,0.85 --fp16 --loss-scale 512
    1 GPU:         --cycle-len 30 --lr 1.5 --wd 1e-4 --use-clr 20,20,0.95,0.85   --fp16 --loss-scale 512

By default the batch is 512; momentum is plain, weight decay is on all parameters, labels are not smoothed.

Not taken over: the images' colours were also changed at random, by up to a quarter, and they were turned by up to two
degrees; here they are padded, cropped and flipped only. What that costs has not been measured.
"""

from __future__ import annotations

from trainer.recipe import CIFAR_MEAN, CIFAR_STD, DataPhase, Ramp, Recipe

Cycle = tuple[tuple[Ramp, ...], tuple[Ramp, ...]]  # of the learning rate, of the momentum


def _one_cycle(epochs: int, *, peak: float, div: float, percent: float, high: float, low: float) -> Cycle:
    """Return learning rate and momentum of fast.ai's `use_clr=div,percent,high,low` over `epochs` epochs.

    The last `percent` of the run is a tail; up and down share the rest. The learning rate climbs from peak / div to
    peak, returns, and falls to a hundredth of that in the tail; momentum goes from high to low and back, and stays.
    Source: fastai 0.7, sgdr.py, CircularLR_beta; after Smith 2018 (arXiv:1803.09820).
    """
    half = epochs * (1 - percent / 100) / 2
    base = peak / div
    rates = (
        Ramp(0, base, half, peak),
        Ramp(half, peak, 2 * half, base),
        Ramp(2 * half, base, epochs, base / 100),
    )
    return rates, (Ramp(0, high, half, low), Ramp(half, low, 2 * half, high), Ramp(2 * half, high))


def _recipe(gpus: int, batch: int, weight_decay: float, epochs: int, cycle: Cycle) -> Recipe:
    return Recipe(
        name="cifar10-wrn",
        scale="full",
        machines=1,
        gpus_per_machine=gpus,
        model="wrn22-6",
        epochs=epochs,
        data=(DataPhase(start=0, size=32, batch=batch, min_scale=1.0),),
        lr=cycle[0],
        momentum=cycle[1],
        weight_decay=weight_decay,
        decay_norms=True,
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        padding=4,
        border=1.0,
        eval_batch=2 * batch,
    )


ONE = _recipe(1, 512, 1e-4, 30, _one_cycle(30, peak=1.5, div=20, percent=20, high=0.95, low=0.85))
EIGHT = _recipe(8, 128, 2e-4, 40, _one_cycle(40, peak=2.0, div=50, percent=12.5, high=0.95, low=0.85))

TABLES = (ONE, EIGHT)
