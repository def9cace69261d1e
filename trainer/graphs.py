"""Steps recorded as CUDA graphs: what a CPU launched kernel by kernel for one step, a GPU repeats for the others.

At small images and batches a GPU waits for the kernels' launches, not for their work: two thousand of them a step. What
depends on the step lies in tensors that keep their place: images, labels, the loss scale, the ranks' wishes. Learning
rate and momentum belong to the optimizer, which is not recorded. A training's phases follow one another, so that one
recording at a time is enough. Rules: docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import world as ranks
from trainer.errors import TrainerError
from trainer.world import World

CHOICES = ("auto", "on", "off")
PASSES_BEFORE = 11  # DDP times its first ten with events that cannot be recorded
_STEPS_BEFORE = 3  # of each shape, launched as ever: cuDNN tries its kernels in the first
_LARGEST_SHARE = 0.7  # of the memory, in use at most before: recorded, a step's memory is given to nothing else

Compute = Callable[[Tensor, Tensor, int, int], None]


def choose(wanted: str, device: str, world_size: int, *, compiled: bool = False) -> bool:
    """Return whether steps are recorded, for `wanted` (one of CHOICES) on "cuda" or "cpu".

    Left to itself one GPU does. Several exchange gradients inside of what is recorded; nobody has tried that yet, nor
    to record a `compiled` network, and torch's watchdog does not see such exchanges: when a rank is lost the others
    hang, where they would else end after `world.PATIENCE`. Raises TrainerError for CPUs.
    """
    if wanted == "on" and device != "cuda":
        raise TrainerError("--graphs on is for GPUs", "leave --graphs out to train on CPUs")
    return wanted == "on" or (wanted == "auto" and device == "cuda" and world_size == 1 and not compiled)


def fits(peak: int, total: int) -> bool:
    """Return whether a step that used `peak` of a GPU's `total` bytes may be recorded, and evaluations find room."""
    return peak <= _LARGEST_SHARE * total


@dataclass(slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    images: Tensor
    labels: Tensor


class Graphs:
    """Runs `compute(images, labels, count, parts)`, which leaves gradients, recorded when `wanted`.

    All ranks run the same steps. Gradients are forgotten here alone: those of a recording keep their place.
    """

    def __init__(self, compute: Compute, forget: Callable[[], None], world: World, *, wanted: bool) -> None:
        self._compute, self._forget, self._world, self._wanted = compute, forget, world, wanted
        self._shape: tuple[object, ...] = ()
        self._seen = 0
        self._recorded: _Recorded | None = None

    def run(self, images: Tensor, labels: Tensor, count: int, parts: int) -> None:
        """Compute the gradients of a step; `labels` and `images` may be used again at once.

        Raises TrainerError when the step cannot be recorded.
        """
        shape = (images.shape, count, parts)
        if shape != self._shape:
            self._shape, self._seen, self._recorded = shape, 0, None
            if self._wanted:
                torch.cuda.reset_peak_memory_stats()
        if self._recorded is None and self._wanted and self._seen == _STEPS_BEFORE and self._all_have_room():
            self._recorded = self._record(images, labels, count, parts)
        self._seen += 1
        if self._recorded is None:
            self._forget()
            self._compute(images, labels, count, parts)
            return
        self._recorded.images.copy_(images)
        self._recorded.labels.copy_(labels)
        self._recorded.graph.replay()

    def forget(self) -> None:
        """Drop what was recorded."""
        self._shape, self._recorded = (), None

    def _all_have_room(self) -> bool:
        """Return whether every rank has: what one records and another does not would hang."""
        total = torch.cuda.get_device_properties(self._world.device).total_memory
        have = torch.tensor(float(fits(torch.cuda.max_memory_allocated(), total)))
        return bool(ranks.total(have) == self._world.size)

    def _record(self, images: Tensor, labels: Tensor, count: int, parts: int) -> _Recorded:
        made = _Recorded(torch.cuda.CUDAGraph(), torch.empty_like(images), torch.empty_like(labels))
        made.images.copy_(images)
        made.labels.copy_(labels)
        self._forget()
        here = torch.cuda.current_stream()
        try:
            # Loader threads go on allocating pinned memory meanwhile, which only this mode allows.
            with torch.cuda.graph(made.graph, stream=here, capture_error_mode="thread_local"):
                self._compute(made.images, made.labels, count, parts)
        except RuntimeError as error:
            raise TrainerError(
                f"a step cannot be recorded as a CUDA graph: {error}".splitlines()[0], "give --graphs off"
            ) from error
        return made
