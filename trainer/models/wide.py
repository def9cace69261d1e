"""The wide residual network WRN-22-6 (Zagoruyko and Komodakis 2016, arXiv:1605.07146): 22 layers, 6 times as wide.

As fast.ai had it for CIFAR-10 in April 2018 (fastai/imagenet-fast at e93593c, `wrn_22`): pre-activation blocks, a last
normalisation and ReLU before the mean over all positions, convolutions initialised by their fan-out, no dropout, and no
branch that begins at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from trainer.models.preact import conv, stages

WRN22_6 = (16, 16 * 6, 32 * 6, 64 * 6)  # channels of the stem and of the three stages
BLOCKS = 3  # in each stage: (22 - 4) / 6


class WideResNet(nn.Module):
    """A 3x3 stem, stages of `blocks` blocks, normalisation, ReLU, the mean over all positions, one linear layer."""

    def __init__(self, channels: Sequence[int], blocks: int, classes: int) -> None:
        super().__init__()
        self.stem = conv(3, channels[0], 3)
        self.blocks = stages(channels, blocks)
        self.norm = nn.BatchNorm2d(channels[-1])
        self.head = nn.Linear(channels[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of normalised images (n, 3, h, w) of any size."""
        y = relu(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"wrn22-6": partial(WideResNet, WRN22_6, BLOCKS)}
