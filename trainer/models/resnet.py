"""Residual networks: the real ones, and a narrow one for CPU ranks (He et al. 2015, arXiv:1512.03385).

The last normalisation of every block starts at zero (a block begins as the identity), which is what makes large
learning rates bearable in the first epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu


@dataclass(frozen=True, slots=True)
class Shape:
    """Blocks per stage, channels of each stage before expansion, bottleneck blocks or basic ones, and the stem.

    The large stem halves the image twice (7x7 and pooling), the small one once (3x3).
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool
    large_stem: bool = True


SHAPES = {
    "resnet18": Shape((2, 2, 2, 2), (64, 128, 256, 512), bottleneck=False),
    "resnet50": Shape((3, 4, 6, 3), (64, 128, 256, 512), bottleneck=True),
    "resnet-sandbox": Shape((1, 1, 1), (24, 48, 96), bottleneck=False, large_stem=False),
}


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels out of a bottleneck."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = width * 4 if bottleneck else width
        if bottleneck:
            layers = [_conv(channels, width, 1), _conv(width, width, 3, stride), _conv(width, out, 1)]
        else:
            layers = [_conv(channels, width, 3, stride), _conv(width, width, 3)]
        self.convs = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.BatchNorm2d(layer.out_channels) for layer in layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(_conv(channels, out, 1, stride), nn.BatchNorm2d(out))
        nn.init.zeros_(self.norms[-1].weight)  # type: ignore[arg-type]
        self.out_channels = out

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: (n, channels, h, w) to (n, out_channels, h / stride, w / stride)."""
        y = x
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(relu(y) if index else y))
        return relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, stages of blocks, the mean over all positions, one linear layer."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        channels = shape.widths[0]
        stem: list[nn.Module] = [
            nn.Conv2d(3, channels, 7, 2, 3, bias=False) if shape.large_stem else _conv(3, channels, 3, 2),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        if shape.large_stem:
            stem.append(nn.MaxPool2d(3, 2, 1))
        self.stem = nn.Sequential(*stem)
        blocks = []
        for stage, (count, width) in enumerate(zip(shape.blocks, shape.widths, strict=True)):
            for index in range(count):
                blocks.append(Block(channels, width, 2 if stage and not index else 1, shape.bottleneck))
                channels = blocks[-1].out_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of normalised images (n, 3, h, w) of any size."""
        y: Tensor = self.blocks(self.stem(x))
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


def _conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {name: partial(ResNet, shape) for name, shape in SHAPES.items()}
