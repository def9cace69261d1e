"""In which numbers the network is computed: chosen from the hardware, or by one flag.

bf16 where the GPU has it (compute capability 8 and above), fp16 with loss scaling on older ones, fp32 on CPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from trainer.errors import TrainerError

CHOICES = ("auto", "fp32", "bf16", "fp16")
FIRST_SCALE = 1024.0  # the constant one of imagenet18's trainings: no first steps are lost to the search for it
STEPS_TO_GROW = 500  # without an overflow until the scale doubles; a training in minutes has a few thousand steps
_BF16_SINCE = 8
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose(wanted: str, device: torch.device) -> str:
    """Return "fp32", "bf16" or "fp16" for `wanted` (one of CHOICES) on `device`. Raises TrainerError without bf16."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return decide(wanted, capability)


def decide(wanted: str, capability: tuple[int, int] | None) -> str:
    """Return what `choose` does for a GPU of compute `capability`, None being a CPU. Pure."""
    if capability is None:
        if wanted == "fp16":
            raise TrainerError("fp16 is for GPUs", "leave --precision out, or give bf16 or fp32, to train on CPUs")
        return "fp32" if wanted == "auto" else wanted
    native = capability[0] >= _BF16_SINCE
    if wanted == "auto":
        return "bf16" if native else "fp16"
    if wanted == "bf16" and not native:
        raise TrainerError(
            "this GPU (compute capability {}.{}) does not compute in bf16".format(*capability),
            "leave --precision out, or give fp16",
        )
    return wanted


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which forward passes run."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, _TYPES[precision])


def scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return the loss scaler; it does nothing unless `precision` is fp16.

    A step whose gradients overflow is left out on all ranks alike, and halves the scale. With the fused optimizer of a
    GPU that is decided on the GPU; the CPU does not wait.
    """
    return torch.amp.GradScaler(
        device.type, init_scale=FIRST_SCALE, growth_interval=STEPS_TO_GROW, enabled=precision == "fp16"
    )
