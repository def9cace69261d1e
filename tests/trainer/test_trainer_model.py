from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer import models
from trainer.errors import TrainerError
from trainer.models import preact, resnet
from trainer.recipe import IMAGENET_MEAN as MEAN
from trainer.recipe import IMAGENET_STD as STD


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_the_real_networks_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in models.build(name, 1000).parameters()) == parameters


def conv_weights(into: int, out: int, kernel: int) -> int:
    return into * out * kernel * kernel


def block_weights(into: int, out: int) -> int:
    """Weights of a pre-activation block: two normalisations, two convolutions, one more where the shape changes."""
    around = conv_weights(into, out, 1) if into != out else 0
    return 2 * into + conv_weights(into, out, 3) + 2 * out + conv_weights(out, out, 3) + around


def test_wrn_22_6_has_as_many_parameters_as_its_paper_describes() -> None:
    groups = sum(
        block_weights(into, out) + 2 * block_weights(out, out) for into, out in [(16, 96), (96, 192), (192, 384)]
    )
    expected = conv_weights(3, 16, 3) + groups + 2 * 384 + (384 * 10 + 10)
    assert sum(p.numel() for p in models.build("wrn22-6", 10).parameters()) == expected == 9_658_458


def test_preact18_has_a_narrow_last_stage_and_sees_mean_and_maximum() -> None:
    stages = block_weights(64, 64) + block_weights(64, 64)
    for into, out in [(64, 128), (128, 256)]:
        stages += block_weights(into, out) + block_weights(out, out)
    stages += 2 * block_weights(256, 256) + conv_weights(256, 256, 1)  # halves the image, and so goes around by a 1x1
    expected = conv_weights(3, 64, 3) + 2 * 64 + stages + (512 * 10 + 10)
    assert sum(p.numel() for p in models.build("preact18", 10).parameters()) == expected == 5_205_962


def test_the_head_of_a_pre_activation_network_gets_mean_and_maximum_over_all_positions() -> None:
    network = models.build("preact-sandbox", 10).eval()
    assert isinstance(network, preact.PreActResNet)
    with torch.inference_mode():
        images = torch.randn(2, 3, 20, 28)
        last = network.blocks(network.stem(images))
        pooled = torch.cat([last.flatten(2).mean(2), last.flatten(2).max(2).values], 1)
        assert torch.allclose(network(images), network.head(pooled), atol=1e-6)


@pytest.mark.parametrize(("into", "out", "stride"), [(8, 8, 1), (8, 8, 2), (8, 12, 1), (8, 12, 2)])
def test_a_pre_activation_block_is_the_sum_of_what_goes_around_and_what_goes_through(
    into: int, out: int, stride: int
) -> None:
    block = preact.Block(into, out, stride).eval()
    x = torch.randn(2, into, 9, 9)
    with torch.inference_mode():
        active = block.norm1(x).relu()
        through = block.conv2(block.norm2(block.conv1(active)).relu())
        around = (
            x
            if (into, stride) == (out, 1)
            else nn.functional.conv2d(active, block.get_parameter("shortcut.weight"), stride=stride)
        )
        assert torch.allclose(block(x), around + through, atol=1e-6)


def test_the_wide_network_starts_by_its_fan_out_and_no_branch_at_zero() -> None:
    torch.manual_seed(0)
    network = models.build("wrn22-6", 10)
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convs) == 1 + 18 + 3
    for layer in convs[1:]:
        fan_out = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
        assert float(layer.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert all(torch.all(norm.weight == 1) for norm in norms)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet-sandbox", (20, 20)), ("resnet-sandbox", (36, 48)), ("resnet-sandbox", (33, 65)),
        ("preact-sandbox", (20, 20)), ("preact-sandbox", (33, 65)), ("preact18", (17, 30)), ("wrn22-6", (17, 30)),
    ],
)  # fmt: skip
def test_a_network_takes_any_image_size(name: str, size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.inference_mode():
        assert models.build(name, 7).eval()(models.normalise(images, MEAN, STD)).shape == (2, 7)


@pytest.mark.parametrize("name", list(resnet.SHAPES))
def test_a_block_begins_as_the_identity(name: str) -> None:
    blocks = [m for m in models.build(name, 10).modules() if isinstance(m, resnet.Block)]
    assert blocks
    for block in blocks:
        assert block.norms[-1].weight is not None
        assert not torch.any(torch.as_tensor(block.norms[-1].weight))


def test_only_batch_normalisation_is_spared_the_weight_decay() -> None:
    network = models.build("resnet-sandbox", 10)
    decayed, spared = models.decay_groups(network, 1e-4)
    norms = {id(p) for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    assert isinstance(spared["params"], list) and isinstance(decayed["params"], list)
    assert {id(p) for p in spared["params"]} == norms
    assert (spared["weight_decay"], decayed["weight_decay"]) == (0.0, 1e-4)
    assert len(spared["params"]) + len(decayed["params"]) == len(list(network.parameters()))
    assert any(p is network.get_parameter("head.bias") for p in decayed["params"])  # as in the original


def test_normalising_gives_mean_zero_and_deviation_one_for_imagenets_own() -> None:
    grey = torch.tensor(MEAN).mul(255).round().to(torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert models.normalise(grey, MEAN, STD).abs().max() < 0.01


def test_an_unknown_network_is_refused_with_those_there_are() -> None:
    with pytest.raises(TrainerError, match="no network 'vgg'") as caught:
        models.build("vgg", 10)
    assert "resnet50" in caught.value.hint
