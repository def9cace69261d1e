"""cifar10-preact18: a pre-activation ResNet-18 on CIFAR-10 to 94%, Ben Johnson's DAWNBench entry of April 2018.

One V100 (p3.2xlarge): 94.08% after 31 of 40 epochs, 5:41, $0.29; 4 of 5 runs reached 94%, this was the median one.
Source: bkj/basenet at 49b2b61, examples/cifar10.py, whose defaults these are, with its `linear_cycle` as it computes:
up to 0.1 by the middle of 30 epochs, from there 0.105 down to 0.005, to 0 in 5 more, and a tenth of 0.005 in the last
five. Weight decay is on all parameters. The original computed everything in fp16, batch normalisation too; here the
precision follows the hardware.
"""

from __future__ import annotations

from trainer.recipe import CIFAR_MEAN, CIFAR_STD, DataPhase, Ramp, Recipe

ONE = Recipe(
    name="cifar10-preact18",
    scale="full",
    machines=1,
    gpus_per_machine=1,
    model="preact18",
    epochs=40,
    data=(DataPhase(start=0, size=32, batch=128, min_scale=1.0),),
    lr=(Ramp(0, 0.0, 15, 0.1), Ramp(15, 0.105, 30, 0.005), Ramp(30, 0.005, 35, 0.0), Ramp(35, 0.0005)),
    nesterov=True,
    weight_decay=5e-4,
    decay_norms=True,
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    padding=4,
    border=1.0,
    eval_batch=512,
    log_every=50,
)

TABLES = (ONE,)
