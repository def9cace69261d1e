"""Run in ranks by test_trainer_parts.py: the trainer, which says how many DDP objects live when its group ends."""

from __future__ import annotations

import gc
import sys

import pytest
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from trainer import cli


def main(arguments: list[str]) -> int:
    """Train as `python -m trainer ARGUMENTS` does."""
    destroy = dist.destroy_process_group

    def counted() -> None:
        alive = sum(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects())
        sys.stdout.write(f"{alive} alive\n")
        destroy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "destroy_process_group", counted)
        return cli.main(arguments)
