"""In which numbers the network is computed: chosen from the hardware, or by one flag.

bf16 where the GPU has it (compute capability 8 and above), fp16 with loss scaling on older ones, fp32 on CPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

CHOICES = ("auto", "fp32", "bf16", "fp16")
_BF16_SINCE = 8
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose(wanted: str, device: torch.device) -> str:
    """Return "fp32", "bf16" or "fp16" for `wanted` (one of CHOICES) on `device`."""
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "fp32"
    major, _ = torch.cuda.get_device_capability(device)
    return "bf16" if major >= _BF16_SINCE else "fp16"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which forward passes run."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, _TYPES[precision])


def scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return the loss scaler; it does nothing unless `precision` is fp16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
