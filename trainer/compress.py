"""Gradients on the wire in 16 bit: half the bytes between machines, where the network is what a step waits for.

The rider (`signals`) travels beside them in 32 bit, in a message of twelve bytes, so that the loss is exact.
Annotations are evaluated in this file (no `from __future__`): DDP checks those of a hook.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainer.errors import TrainerError
from trainer.world import World

CHOICES = ("auto", "none", "bf16", "fp16")
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class _How:
    rider: nn.Parameter
    kind: torch.dtype
    ranks: int
    exact: torch.Tensor  # made once: on a GPU it is still travelling when the hook has returned


def choose(wanted: str, numbers: str, machines: int) -> str:
    """Return "none", "bf16" or "fp16" for `wanted` (one of CHOICES) when the network is computed in `numbers`.

    Left to itself, what is computed in 16 bit also travels so between machines; inside one the links are fast enough.
    """
    if wanted != "auto":
        return wanted
    return numbers if machines > 1 and numbers in _TYPES else "none"


def attach(ddp: DistributedDataParallel, rider: nn.Parameter, kind: str, world: World) -> None:
    """Make `ddp` send gradients as `kind` (as `choose` returns it) from now on; all ranks call it.

    Raises TrainerError where the ranks' way to talk knows no such numbers (gloo of an older torch).
    """
    if kind == "none":
        return
    try:
        dist.all_reduce(torch.zeros(1, dtype=_TYPES[kind], device=world.device))
    except RuntimeError as error:
        raise TrainerError(
            f"gradients cannot be sent as {kind} between ranks on {world.device.type}: {error}".splitlines()[0],
            "leave --compress out, or take a newer torch",
        ) from error
    ddp.register_comm_hook(_How(rider, _TYPES[kind], world.size, torch.zeros_like(rider.detach())), _send)


def _send(
    how: _How,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """Begin to average a bucket over all ranks; what DDP waits for resolves to it."""
    whole: torch.Tensor = bucket.buffer()
    riders = [
        gradient
        for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True)
        if parameter is how.rider
    ]
    for gradient in riders:
        torch.div(gradient, how.ranks, out=how.exact)
    before = [dist.all_reduce(how.exact, async_op=True) for _ in riders]
    short = whole.to(how.kind).div_(how.ranks)  # before the sum, which would leave the range of fp16 sooner

    def spread(done: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
        whole.copy_(done.value()[0])
        for work, gradient in zip(before, riders, strict=True):
            work.wait()
            gradient.copy_(how.exact)
        return whole

    sent = dist.all_reduce(short, async_op=True)
    return sent.get_future().then(spread)  # type: ignore[no-any-return]
