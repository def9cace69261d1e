"""Batches from memory to the device, while the device is busy with the one before.

On a GPU the copy has a stream of its own. The CPU is a step ahead of the GPU (`signals.Exchange`), so that the images
of a step travel while the step before is computed. On a CPU nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def to_device(batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each of `batches` (images, labels) on `device`; pinned ones do not hold up the CPU."""
    if device.type != "cuda":
        yield from batches
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for images, labels in batches:
        with torch.cuda.stream(side):
            moved = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        here = torch.cuda.current_stream(device)
        here.wait_stream(side)
        for tensor in moved:  # so that their memory is not given to others before this stream is through with them
            tensor.record_stream(here)
        yield moved
