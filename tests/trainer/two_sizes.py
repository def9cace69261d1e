"""Run in ranks, and on the nodes of tests/e2e/test_staging.py: imagenet18 at sandbox scale, its first images `sz/20`.

So there is a second size that a training needs later. `python two_sizes.py ...` is then `python -m trainer ...`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from trainer import recipes
from trainer.cli import main as trainer
from trainer.recipes.imagenet18_sandbox import SIXTEEN

FIRST = "sz/20"


def main(arguments: list[str]) -> int:
    """Train as `python -m trainer ARGUMENTS` does."""
    phases = tuple(replace(phase, folder=FIRST if phase.size == 20 else "") for phase in SIXTEEN.data)
    recipes.RECIPES["imagenet18"][recipes.SANDBOX] = (replace(SIXTEEN, data=phases),)
    return trainer(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
