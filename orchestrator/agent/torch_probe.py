"""One rank of an all-reduce by torch.distributed: a program of its own, run by the experiment's Python.

The one file outside the trainer that imports torch; nothing imports it. Its environment is that of a torchrun worker,
with ORCH_DEVICE. It prints `{"rate": bus bandwidth in bytes/s}` on its last line, and ends with 0 only when the sum is
right.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

# As large as the gradients of ResNet-50 in half precision on GPUs; less where CPUs add them up.
GPU_BYTES, CPU_BYTES = 64 << 20, 4 << 20
TIMES = 5
SECONDS = 60


def main() -> int:
    """Measure and return the exit code."""
    cuda = os.environ["ORCH_DEVICE"] == "cuda"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    torch.set_num_threads(1)
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=SECONDS))
    world = dist.get_world_size()
    numbers = torch.ones((GPU_BYTES if cuda else CPU_BYTES) // 4, device=device)
    dist.all_reduce(numbers)
    right = bool((numbers == world).all())
    numbers.zero_()
    dist.all_reduce(numbers)
    _wait(cuda)
    began = time.monotonic()
    for _ in range(TIMES):
        dist.all_reduce(numbers)
    _wait(cuda)
    seconds = (time.monotonic() - began) / TIMES
    # https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md; of one rank alone there is no bus.
    moved = numbers.numel() * 4 * (2 * (world - 1) / world if world > 1 else 1)
    print(json.dumps({"rate": moved / seconds}), flush=True)  # noqa: T201 - its answer
    dist.destroy_process_group()
    return 0 if right else 1


def _wait(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
