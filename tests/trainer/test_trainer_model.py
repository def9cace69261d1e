from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer import models, precision
from trainer.errors import TrainerError
from trainer.models import resnet
from trainer.recipe import IMAGENET_MEAN as MEAN
from trainer.recipe import IMAGENET_STD as STD


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_the_real_networks_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in models.build(name, 1000).parameters()) == parameters


@pytest.mark.parametrize("size", [(20, 20), (36, 48), (33, 65)])
def test_the_sandbox_network_takes_any_image_size(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert models.build("resnet-sandbox", 7)(models.normalise(images, MEAN, STD)).shape == (2, 7)


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


@pytest.mark.parametrize(
    ("wanted", "device", "capability", "chosen"),
    [
        ("auto", "cpu", 0, "fp32"),
        ("auto", "cuda", 7, "fp16"),
        ("auto", "cuda", 8, "bf16"),
        ("auto", "cuda", 9, "bf16"),
        ("fp32", "cuda", 9, "fp32"),
    ],
)
def test_precision_follows_the_hardware_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch, wanted: str, device: str, capability: int, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    assert precision.choose(wanted, torch.device(device)) == chosen


def test_losses_are_scaled_for_fp16_alone() -> None:
    cpu = torch.device("cpu")
    assert precision.scaler("fp16", cpu).is_enabled()
    assert not precision.scaler("bf16", cpu).is_enabled()
