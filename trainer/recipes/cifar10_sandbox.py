"""cifar10-preact18 at sandbox scale: a narrow network of the same kind, two epochs of the real images, for CPU ranks.

Same course as the recipe (the learning rate climbs, falls to a twentieth, then to nothing), same padding, crops and
flips, same code; 78 thousand parameters instead of five million. cifar10-wrn has no such scale: a network of its kind,
made as narrow, would have the very same blocks.
"""

from __future__ import annotations

from dataclasses import replace

from trainer.recipe import DataPhase, Ramp
from trainer.recipes import cifar10_preact18

FOUR = replace(
    cifar10_preact18.ONE,
    scale="sandbox",
    machines=4,
    model="preact-sandbox",
    epochs=2,
    data=(DataPhase(start=0, size=32, batch=32, min_scale=1.0),),
    lr=(Ramp(0, 0.0, 0.8, 0.4), Ramp(0.8, 0.4, 1.75, 0.02), Ramp(1.75, 0.02, 2, 0.0)),
    eval_batch=250,
    log_every=20,
    note="the sandbox scale of the recipe: a narrow network for two epochs, to show that everything works",
)

TABLES = (FOUR,)
