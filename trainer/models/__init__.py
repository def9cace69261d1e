"""The networks by name, and what a training needs of any of them. Adaptive pooling, so that any image size works.

A network takes normalised images (n, 3, h, w) and returns logits (n, classes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from trainer.errors import TrainerError
from trainer.models import preact, resnet, wide

SHAPES_COMPILED = 128  # image sizes times shares times parts, or aspect ratios; torch's own limit is 8
NETWORKS: dict[str, Callable[[int], nn.Module]] = {**resnet.NETWORKS, **preact.NETWORKS, **wide.NETWORKS}


def build(name: str, classes: int) -> nn.Module:
    """Return the network `name` for `classes` classes, freshly initialised. Raises TrainerError for unknown names."""
    if name not in NETWORKS:
        raise TrainerError(f"there is no network {name!r}", f"choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](classes)


def compile_in_place(network: nn.Module) -> None:
    """Have `network` compiled for each shape of batch it is called with."""
    from torch._dynamo import config

    config.recompile_limit = SHAPES_COMPILED
    network.compile(dynamic=False)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return uint8 images (n, 3, h, w) as floats less `mean` by `std` (of pixels from 0 to 1), channels last."""
    means, deviations = _moments(images.device, tuple(mean), tuple(std))
    return images.to(torch.float32).sub_(means).div_(deviations).contiguous(memory_format=torch.channels_last)


def decay_groups(model: nn.Module, weight_decay: float, *, decay_norms: bool = False) -> list[dict[str, object]]:
    """Return the parameters as groups for an optimizer: those of batch normalisation decay only with `decay_norms`."""
    if decay_norms:
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    norms = [p for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    spared = {id(parameter) for parameter in norms}
    others = [parameter for parameter in model.parameters() if id(parameter) not in spared]
    return [{"params": others, "weight_decay": weight_decay}, {"params": norms, "weight_decay": 0.0}]


@cache
def _moments(device: torch.device, mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return both of pixels from 0 to 255, shape (1, 3, 1, 1), made once: a copy to a GPU waits for it."""
    means, deviations = (torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in (mean, std))
    return means, deviations
