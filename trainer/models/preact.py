"""Pre-activation residual networks (He et al. 2016, arXiv:1603.05027): one for CIFAR-10, a narrow one for CPU ranks.

Pooling concatenates the mean and the maximum over all positions. Everything starts as PyTorch initialises it, as in the
original (bkj/basenet, April 2018); only its batch normalisations began at random scales from 0 to 1, as PyTorch's did
then, where these begin at 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

# Channels of the stem and of each stage after it, two blocks to a stage; every stage but the first halves the image.
PREACT18 = (64, 64, 128, 256, 256)  # a ResNet-18 whose last stage is half as wide as usual
SANDBOX = (16, 16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions, each after its normalisation and ReLU; what goes around them is not normalised.

    Where the shape changes, a 1x1 convolution of the activated input goes around.
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(out)
        self.conv1, self.conv2 = conv(channels, out, 3, stride), conv(out, out, 3)
        self.shortcut = conv(channels, out, 1, stride) if stride != 1 or channels != out else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: (n, channels, h, w) to (n, out, h / stride, w / stride)."""
        active = relu(self.norm1(x))
        around = x if self.shortcut is None else self.shortcut(active)
        y: Tensor = around + self.conv2(relu(self.norm2(self.conv1(active))))
        return y


class PreActResNet(nn.Module):
    """A 3x3 stem, stages of `blocks` blocks each, mean and maximum over all positions, one linear layer."""

    def __init__(self, channels: Sequence[int], blocks: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, channels[0], 3), nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True))
        self.blocks = stages(channels, blocks)
        self.head = nn.Linear(2 * channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of normalised images (n, 3, h, w) of any size."""
        y: Tensor = self.blocks(self.stem(x))
        logits: Tensor = self.head(torch.cat((y.mean((2, 3)), y.amax((2, 3))), 1))
        return logits


def stages(channels: Sequence[int], blocks: int) -> nn.Sequential:
    """Return `blocks` blocks for each of `channels` after the first; each stage but the first halves the image."""
    layers: list[nn.Module] = []
    for stage, (before, out) in enumerate(pairwise(channels)):
        layers.append(Block(before, out, 2 if stage else 1))
        layers += [Block(out, out, 1) for _ in range(blocks - 1)]
    return nn.Sequential(*layers)


def conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size of the image at stride 1."""
    return nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "preact18": partial(PreActResNet, PREACT18, 2),
    "preact-sandbox": partial(PreActResNet, SANDBOX, 1),
}
