"""`torchrun -m trainer.selftest`: whether torch works on this machine's GPUs, and the ranks can add up a number.

What the check of a machine image runs. Each rank computes on its own device, then all of them meet; it trains nothing.
"""

from __future__ import annotations

import os
import sys

import torch

from trainer import contract
from trainer.errors import DONE, TrainerError
from trainer.words import counted
from trainer.world import World, join, part, total

ELEMENTS = 1 << 20


def main() -> int:
    """Test this rank and the way to the others; return the exit code."""
    try:
        world = join(contract.read(os.environ))
        said = f"torch {torch.__version__}, {compute(world)}"
        meet(world)
    except TrainerError as error:
        sys.stderr.write(error.text() + "\n")
        return error.exit_code
    if world.leads:
        sys.stdout.write(f"selftest: {said}; {counted(world.size, 'rank')} added up {ELEMENTS} numbers\n")
    part()
    return DONE


def compute(world: World) -> str:
    """Convolve on this rank's device, in half precision on a GPU, and return its name.

    Raises TrainerError where the result is wrong; torch itself fails where it has no kernels for the GPU.
    """
    precision = torch.float16 if world.device.type == "cuda" else torch.float32
    images = torch.ones(2, 3, 8, 8, device=world.device, dtype=precision)
    kernels = torch.ones(4, 3, 3, 3, device=world.device, dtype=precision)
    found = torch.nn.functional.conv2d(images, kernels)
    if not bool((found == 27).all()):
        raise TrainerError(f"{world.device} computes wrongly", "take another machine, or look at its driver")
    return torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"


def meet(world: World) -> None:
    """Add up the ranks' numbers on all of them. Raises TrainerError where the sum is wrong."""
    numbers = total(torch.full((ELEMENTS,), float(world.rank + 1), device=world.device))
    if not bool((numbers == world.size * (world.size + 1) // 2).all()):
        raise TrainerError("the ranks' sum is wrong", "look at the network between the GPUs: NCCL_DEBUG=INFO")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # gloo's threads outlive the process group: an interpreter that takes itself down under them may abort instead.
    os._exit(code)
